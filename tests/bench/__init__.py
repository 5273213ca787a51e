"""The benchmark: the service beside a bare server on the same tables, and beside PostgreSQL's own COPY."""
