#!/bin/sh
# Runs when the volume is made. To change the password later: ALTER ROLE chat_insights_app LOGIN PASSWORD '...'
set -eu
psql --set=ON_ERROR_STOP=1 --set=password="$APP_PASSWORD" --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
CREATE ROLE chat_insights_app LOGIN PASSWORD :'password';
SQL
