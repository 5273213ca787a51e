"""Counts of conversations by when they began, label and keyword, kept as conversations come, change and go."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ROLE = "chat_insights_app"
TABLES = ("trend_counts", "trend_changes")
FUNCTIONS = ("note_trend_change", "forget_trends", "fold_trend_changes", "fold_noted", "count_trends")

LABELS = {
    "sentiment": ("positive", "neutral", "negative", "mixed"),
    "outcome": ("yes", "no", "maybe", "curious"),
}
AT_ONCE = 1_000
"""Of how many deleted conversations the counts are corrected in the deletion's own transaction."""
COUNTS = ("conversations", *LABELS["sentiment"], *LABELS["outcome"])

# Adds what is given, conversation by conversation and keyword by keyword ('' is every conversation), to the counts, or
# takes it away. All who do so lock the counts in one order. A count of nothing is no row: it would name a keyword that
# no conversation has any more.
COUNT = f"""
CREATE FUNCTION count_trends(
    of_workspace bigint, of_keywords text[], began_at timestamptz[], of_sentiments text[], of_outcomes text[],
    of_signs integer[]
) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    keywords text[];
    spans text[];
    starts timestamptz[];
BEGIN
    WITH written AS (
        INSERT INTO trend_counts AS t (workspace_id, keyword, span, starts_at, {", ".join(COUNTS)})
        SELECT of_workspace, g.keyword COLLATE "C", s.span COLLATE "C", date_trunc(s.span, g.began_at, 'UTC'),
            sum(g.sign), {
    ", ".join(
        f"coalesce(sum(g.sign) FILTER (WHERE g.{column} = '{label}'), 0)"
        for column, labels in LABELS.items()
        for label in labels
    )
}
        FROM unnest(of_keywords, began_at, of_sentiments, of_outcomes, of_signs)
            AS g (keyword, began_at, sentiment, outcome, sign)
        JOIN (VALUES ('hour'), ('day'), ('month')) AS s (span) ON g.keyword = '' OR s.span <> 'hour'
        GROUP BY 2, 3, 4 ORDER BY 2, 3, 4
        ON CONFLICT (workspace_id, keyword, span, starts_at) DO UPDATE
            SET {", ".join(f"{name} = t.{name} + excluded.{name}" for name in COUNTS)}
        RETURNING t.keyword, t.span, t.starts_at, t.conversations
    )
    SELECT array_agg(w.keyword), array_agg(w.span), array_agg(w.starts_at) INTO keywords, spans, starts
    FROM written AS w WHERE w.conversations = 0;
    IF keywords IS NOT NULL THEN
        DELETE FROM trend_counts AS t USING unnest(keywords, spans, starts) AS z (keyword, span, starts_at)
        WHERE t.workspace_id = of_workspace AND t.keyword = z.keyword COLLATE "C" AND t.span = z.span COLLATE "C"
        AND t.starts_at = z.starts_at;
    END IF;
END
$$
"""

# Adds what is noted of conversations to the counts. Earlier releases stored keywords that differ in case alone twice.
FOLD_NOTED = """
CREATE FUNCTION fold_noted(of_workspace bigint, ids text[]) RETURNS void
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM count_trends(
        of_workspace, array_agg(k.keyword), array_agg(g.first_message_at), array_agg(g.sentiment),
        array_agg(g.outcome), array_agg(g.sign)
    )
    FROM (
        SELECT c.first_message_at, c.sentiment, c.outcome, c.keyword_hashes, 1 FROM conversations AS c
        WHERE c.workspace_id = of_workspace AND c.conversation_id = ANY (ids)
        UNION ALL
        SELECT t.first_message_at, t.sentiment, t.outcome, t.keyword_hashes, -1 FROM trend_changes AS t
        WHERE t.workspace_id = of_workspace AND t.conversation_id = ANY (ids) AND t.first_message_at IS NOT NULL
    ) AS g (first_message_at, sentiment, outcome, keyword_hashes, sign)
    CROSS JOIN LATERAL (SELECT DISTINCT unnest(array_append(g.keyword_hashes, ''))) AS k (keyword)
    HAVING count(*) > 0;
    DELETE FROM trend_changes WHERE workspace_id = of_workspace AND conversation_id = ANY (ids);
END
$$
"""

# The rows are locked first: the next statement sees what those who changed these conversations before have committed,
# and those who do so from now on wait, and then note anew what was counted here.
FOLD = """
CREATE FUNCTION fold_trend_changes(of_workspace bigint, at_most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    ids text[];
BEGIN
    ids := ARRAY(
        SELECT conversation_id FROM trend_changes WHERE workspace_id = of_workspace
        ORDER BY conversation_id LIMIT at_most FOR UPDATE SKIP LOCKED
    );
    PERFORM fold_noted(of_workspace, ids);
    RETURN cardinality(ids);
END
$$
"""

# What is noted already stays what the conversation is counted as; the update only locks it, so that nobody folds it
# before this change is committed.
NOTE = """
CREATE FUNCTION note_trend_change() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO trend_changes (workspace_id, conversation_id) VALUES (NEW.workspace_id, NEW.conversation_id);
    ELSE
        INSERT INTO trend_changes AS t
            (workspace_id, conversation_id, first_message_at, sentiment, outcome, keyword_hashes)
        VALUES (OLD.workspace_id, OLD.conversation_id, OLD.first_message_at, OLD.sentiment, OLD.outcome,
            OLD.keyword_hashes)
        ON CONFLICT (workspace_id, conversation_id) DO UPDATE SET first_message_at = t.first_message_at;
    END IF;
    RETURN NULL;
END
$$
"""

# What was counted is noted under a random id, so that nothing names the conversation, and taken away in the deletion's
# own transaction, or, of so many that it would take seconds, soon after.
FORGET = f"""
CREATE FUNCTION forget_trends() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    of_workspace bigint;
    ids text[];
BEGIN
    FOR of_workspace IN SELECT DISTINCT workspace_id FROM gone LOOP
        WITH noted AS (
            DELETE FROM trend_changes AS t WHERE t.workspace_id = of_workspace
            AND t.conversation_id = ANY (ARRAY(SELECT conversation_id FROM gone WHERE workspace_id = of_workspace))
            RETURNING t.conversation_id, t.first_message_at, t.sentiment, t.outcome, t.keyword_hashes
        ), counted AS (
            SELECT first_message_at, sentiment, outcome, keyword_hashes FROM noted WHERE first_message_at IS NOT NULL
            UNION ALL
            SELECT first_message_at, sentiment, outcome, keyword_hashes FROM gone
            WHERE workspace_id = of_workspace AND conversation_id NOT IN (SELECT conversation_id FROM noted)
        ), anew AS (
            INSERT INTO trend_changes
                (workspace_id, conversation_id, first_message_at, sentiment, outcome, keyword_hashes)
            SELECT of_workspace, gen_random_uuid()::text, c.* FROM counted AS c RETURNING conversation_id
        )
        SELECT array_agg(conversation_id) INTO ids FROM anew;
        IF cardinality(ids) <= {AT_ONCE} THEN
            PERFORM fold_noted(of_workspace, ids);
        END IF;
    END LOOP;
    RETURN NULL;
END
$$
"""

# Every conversation that there is has yet to be counted: noted in batches first, so that little is left to do while
# nothing can be written.
NOTE_ALL = """
DO $$
DECLARE
    last_workspace bigint := -9223372036854775808;
    last_conversation text := '';
BEGIN
    LOOP
        WITH batch AS (
            SELECT workspace_id, conversation_id FROM conversations
            WHERE (workspace_id, conversation_id) > (last_workspace, last_conversation)
            ORDER BY workspace_id, conversation_id LIMIT 10000
        ), noted AS (
            INSERT INTO trend_changes (workspace_id, conversation_id) SELECT * FROM batch
        )
        SELECT workspace_id, conversation_id INTO last_workspace, last_conversation
        FROM batch ORDER BY workspace_id DESC, conversation_id DESC LIMIT 1;
        EXIT WHEN NOT FOUND;
        COMMIT;
    END LOOP;
END $$
"""
START = """
DO $$
BEGIN
    LOCK TABLE conversations IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO trend_changes (workspace_id, conversation_id)
    SELECT c.workspace_id, c.conversation_id FROM conversations AS c WHERE NOT EXISTS (
        SELECT FROM trend_changes AS t
        WHERE t.workspace_id = c.workspace_id AND t.conversation_id = c.conversation_id
    );
    DELETE FROM trend_changes AS t WHERE NOT EXISTS (
        SELECT FROM conversations AS c
        WHERE c.workspace_id = t.workspace_id AND c.conversation_id = t.conversation_id
    );
    CREATE TRIGGER trends_new AFTER INSERT ON conversations
    FOR EACH ROW EXECUTE FUNCTION note_trend_change();
    CREATE TRIGGER trends_moved AFTER UPDATE OF first_message_at ON conversations
    FOR EACH ROW WHEN (OLD.first_message_at <> NEW.first_message_at) EXECUTE FUNCTION note_trend_change();
    CREATE TRIGGER trends_labelled AFTER UPDATE OF sentiment, outcome, keyword_hashes ON conversations
    FOR EACH ROW WHEN (
        (OLD.sentiment, OLD.outcome, OLD.keyword_hashes) IS DISTINCT FROM
        (NEW.sentiment, NEW.outcome, NEW.keyword_hashes)
    ) EXECUTE FUNCTION note_trend_change();
    CREATE TRIGGER trends_gone AFTER DELETE ON conversations
    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION forget_trends();
END $$
"""
# What others write meanwhile, they or a worker fold.
FOLD_ALL = """
DO $$
DECLARE
    of_workspace bigint;
BEGIN
    FOR of_workspace IN SELECT DISTINCT workspace_id FROM trend_changes LOOP
        WHILE fold_trend_changes(of_workspace, 5000) = 5000 LOOP
            COMMIT;
        END LOOP;
        COMMIT;
    END LOOP;
END $$
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        remove()  # what a migration that was killed has left
        create_tables()
        for function in (COUNT, FOLD_NOTED, FOLD, NOTE, FORGET):
            op.execute(function)
        for table in TABLES:
            op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {ROLE}")
        op.execute(NOTE_ALL)
        op.execute("ANALYZE trend_changes")
        op.execute(START)
        op.execute(FOLD_ALL)


def create_tables() -> None:
    op.create_table(
        "trend_counts",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("keyword", sa.Text(collation="C"), nullable=False),
        sa.Column("span", sa.Text(collation="C"), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in COUNTS),
        sa.CheckConstraint("span IN ('hour', 'day', 'month')", name=op.f("trend_counts_span_check")),
        sa.PrimaryKeyConstraint("workspace_id", "keyword", "span", "starts_at", name=op.f("trend_counts_pkey")),
    )
    for name in COUNTS:
        op.create_index(
            f"trend_counts_{name}_idx",
            "trend_counts",
            ["workspace_id", "starts_at", name],
            postgresql_where=sa.text(f"span = 'month' AND keyword <> '' AND {name} > 0"),
        )
    op.create_table(
        "trend_changes",
        sa.Column("workspace_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("conversation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("first_message_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sentiment", sa.Text(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("keyword_hashes", sa.ARRAY(sa.Text()), nullable=True),
        sa.PrimaryKeyConstraint("workspace_id", "conversation_id", name=op.f("trend_changes_pkey")),
    )


def remove() -> None:
    for function in FUNCTIONS:
        op.execute(f"DROP FUNCTION IF EXISTS {function} CASCADE")  # and the triggers that call it
    for table in TABLES:
        op.execute(f"DROP TABLE IF EXISTS {table}")


def downgrade() -> None:
    remove()
