// Google on port 9010 or GitHub on port 9030, by an OpenID-certified server with its own pages to log in and to agree.
// It enforces PKCE by S256, the client's secret, the registered redirect and single use of codes.
// usage: node providers.mjs google|github
import Provider from 'oidc-provider';

const HOST = '127.0.0.1';
const [, , name] = process.argv;
const port = { google: 9010, github: 9030 }[name];

const GITHUB_USERS = {
  octocat: { id: 583231, name: 'The Octocat', email: 'octocat@github.com', verified: true },
  unverified: { id: 42, name: 'No V', email: 'nv@example.com', verified: false },
};

const client = {
  client_id: `${name}-client`,
  client_secret: `${name}-secret`,
  redirect_uris: [`http://localhost:8000/auth/callback/${name}`],
  response_types: ['code'],
  grant_types: ['authorization_code'],
  token_endpoint_auth_method: 'client_secret_post',
};

const shared = {
  clients: [client],
  pkce: { required: () => true },
  ttl: { AuthorizationCode: 60, IdToken: 3600, AccessToken: 3600, Session: 3600, Interaction: 600, Grant: 3600 },
  // Cookies ignore ports: each server needs names of its own.
  cookies: {
    keys: ['k'],
    names: { session: `${name}_session`, interaction: `${name}_interaction`, resume: `${name}_resume` },
  },
};

const configurations = {
  google: {
    scopes: ['openid', 'email', 'profile'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
    conformIdTokenClaims: false, // Google puts e-mail and name into the ID token
    features: { devInteractions: { enabled: true } },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: `g-${id}`, email: id, email_verified: !id.startsWith('unverified'), name: 'Ana Person' }),
    }),
  },
  github: {
    routes: { authorization: '/login/oauth/authorize', token: '/login/oauth/access_token' },
    scopes: ['read:user', 'user:email'],
    responseTypes: ['code'],
    features: { devInteractions: { enabled: true }, userinfo: { enabled: false } },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  },
};
if (name === 'github') client.scope = 'read:user user:email';

const provider = new Provider(`http://${HOST}:${port}`, { ...shared, ...configurations[name] });

if (name === 'github') {
  provider.use(async (ctx, next) => {
    if (!['/api/user', '/api/user/emails'].includes(ctx.path)) return next();
    const [kind, value] = ctx.get('authorization').split(' ');
    const token = kind === 'Bearer' && (await provider.AccessToken.find(value));
    ctx.status = token ? 200 : 401;
    if (!token) ctx.body = { message: 'Bad credentials' };
    else {
      const { id, name: shown, email, verified } = GITHUB_USERS[token.accountId];
      const other = { email: 'old@example.com', primary: false, verified: true, visibility: null };
      ctx.body = ctx.path === '/api/user'
        ? { id, login: token.accountId, name: shown, email: null }
        : [other, { email, primary: true, verified, visibility: 'private' }];
    }
  });
}
for (const event of ['server_error', 'grant.error', 'authorization.error']) {
  provider.on(event, (_, error) => console.error(event, error.error || error.message, error.error_detail || ''));
}
provider.listen(port, HOST, () => console.log('listening', port));
