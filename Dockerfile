FROM python:3.12-slim AS packages
COPY requirements.lock .
# Without pip, and without the web pages of litellm's proxy, which nothing here serves.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install --no-cache-dir --disable-pip-version-check --root-user-action ignore \
        --require-hashes --no-deps --requirement requirements.lock \
    && rm -rf /venv/lib/python3.12/site-packages/litellm/proxy/_experimental/out

# What only the interface needs is a third of everything.
FROM packages AS packages-api
RUN pip --python /venv/bin/python uninstall --yes --root-user-action ignore \
    altair itsdangerous pandas pillow pyarrow pydeck python-multipart streamlit watchdog

FROM python:3.12-slim AS base
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin chat \
    && mkdir /data && chown chat /data
WORKDIR /srv
COPY alembic.ini ./
COPY migrations migrations
COPY data data
COPY app app
# The file system may be read-only: only /data (without DATABASE_URL) and /tmp are written to.
ENV PATH=/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 DATA_DIR=/data
RUN python -m compileall -q app migrations

FROM base AS ui
COPY --from=packages /venv /venv
USER chat
EXPOSE 8501
# With a path in UI_URL everything is below it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.parse as p, urllib.request as u; e = os.environ.get; u.urlopen(f'http://127.0.0.1:{e(\"UI_PORT\", 8501)}{p.urlsplit(e(\"UI_URL\", \"\")).path.rstrip(\"/\")}/_stcore/health', timeout=2)"]
CMD ["python", "-m", "app", "ui"]

# API, worker, migrations and the command line.
FROM base AS api
COPY --from=packages-api /venv /venv
USER chat
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 8000)}/readyz', timeout=2)"]
CMD ["python", "-m", "app", "serve"]
