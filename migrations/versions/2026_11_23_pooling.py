"""Give every session of the database what the service needs of one, behind a pooler too."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ON_DATABASE = "DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || quote_ident(current_database()) || ' {}'; END $$"


def upgrade() -> None:
    op.execute(ON_DATABASE.format("SET work_mem = ''64MB''"))
    op.execute(ON_DATABASE.format("SET jit = off"))


def downgrade() -> None:
    op.execute(ON_DATABASE.format("RESET jit"))
    op.execute(ON_DATABASE.format("RESET work_mem"))
