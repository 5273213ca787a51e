FROM python:3.12-slim AS build
COPY requirements.lock .
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement requirements.lock

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 chat
COPY --from=build /venv /venv
WORKDIR /srv
COPY alembic.ini ./
COPY migrations migrations
COPY data data
COPY app app
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOST=0.0.0.0 DATA_DIR=/data
RUN python -m compileall -q app migrations && mkdir /data && chown chat /data
USER chat
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"PORT\", 8000)}/readyz', timeout=2)"]
CMD ["python", "-m", "app", "serve"]
