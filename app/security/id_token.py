"""ID tokens (OpenID Connect Core 1.0, sections 2 and 3.1.3.7), narrower than the standard where it leaves a choice."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidClaimError, InvalidKeyIdError
from joserfc.jwk import ECKey, GuestProtocol, JWKRegistry, RSAKey

KEY_TYPES = {"RS256": "RSA", "ES256": "EC"}
RSA_BITS = 2_048
LEEWAY_S = 10

FOREIGN_KEY = (InvalidKeyIdError, BadSignatureError)
"""Raised when none of the keys signed the token."""

SigningKey = RSAKey | ECKey


def signing_keys(key_set: dict[str, Any]) -> list[SigningKey]:
    """Returns the keys of a JWK set (RFC 7517, section 5) that can sign ID tokens; the others are passed over.

    Raises:
        KeyError, TypeError: if it is no JWK set.
    """
    found: list[SigningKey] = []
    for member in key_set["keys"]:
        # A member that cannot be read, in whatever way, must not spoil its neighbours.
        with suppress(Exception):
            key = JWKRegistry.import_key(member)
            if isinstance(key, ECKey) or (isinstance(key, RSAKey) and key.public_key.key_size >= RSA_BITS):
                found.append(key)
    return found


def verify_id_token(
    token: str, keys: Sequence[SigningKey], *, issuer: str, client_id: str, nonce: str
) -> dict[str, Any]:
    """Returns the claims of a token that this issuer made for this client and this sign-in.

    Raises:
        FOREIGN_KEY: if none of the keys signed it.
        JoseError, TypeError, ValueError: if it is wrong in another way.
    """

    def key_of(signed: GuestProtocol) -> SigningKey:
        header = signed.headers()
        kid = header.get("kid")
        found = [each for each in keys if each.key_type == KEY_TYPES[header["alg"]] and kid in (None, each.kid)]
        if len(found) != 1:
            raise InvalidKeyIdError("no key, or more than one")
        return found[0]

    claims = jwt.decode(token, key_of, algorithms=list(KEY_TYPES)).claims
    jwt.JWTClaimsRegistry(
        leeway=LEEWAY_S,
        iss={"essential": True, "value": issuer},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    ).validate(claims)
    # The registry would be content with a list that holds the right value among others.
    if claims.get("aud") not in (client_id, [client_id]) or claims.get("azp", client_id) != client_id:
        raise InvalidClaimError("aud")
    if claims.get("nonce") != nonce:
        raise InvalidClaimError("nonce")
    return claims
