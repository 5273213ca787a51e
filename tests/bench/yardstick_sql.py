"""The yardstick's statements, on the service's tables, with texts as they are.

An operation is one, but a page by number counts first, a batch aligns the conversations that it adds to, a deletion by
filter looks before it deletes, and the first search for some words asks for an estimate.
"""

# A message for a conversation that mostly exists: the other participants' times are kept by the same statement.
INSERT_ONE = """
    WITH stored AS (
        INSERT INTO messages (workspace_id, conversation_id, message_id, sequence, user_id, user_type, timestamp,
            content, search_vector)
        VALUES ($1, $2, $3, nextval('message_batches') << 14, $4, $5, $6::text::timestamptz, convert_to($7, 'UTF8'),
            to_tsvector('pg_catalog.english', $7))
        ON CONFLICT DO NOTHING RETURNING timestamp
    ), touched AS (
        INSERT INTO conversations AS c (workspace_id, conversation_id, message_count, first_message_at, last_message_at)
        SELECT $1, $2, 1, timestamp, timestamp FROM stored
        ON CONFLICT (workspace_id, conversation_id) DO UPDATE SET
            message_count = c.message_count + 1,
            first_message_at = least(c.first_message_at, excluded.first_message_at),
            last_message_at = greatest(c.last_message_at, excluded.last_message_at)
        RETURNING last_message_at
    ), others AS (
        UPDATE participants AS p SET last_message_at = touched.last_message_at FROM touched
        WHERE p.workspace_id = $1 AND p.conversation_id = $2 AND p.user_id <> $4
        AND p.last_message_at <> touched.last_message_at
    ), sender AS (
        INSERT INTO participants AS p (workspace_id, conversation_id, user_id, user_type, message_count,
            last_message_at)
        SELECT $1, $2, $4, $5, 1, last_message_at FROM touched
        ON CONFLICT (workspace_id, conversation_id, user_id) DO UPDATE SET
            message_count = p.message_count + 1, last_message_at = excluded.last_message_at
    )
    SELECT count(*) FROM stored
"""

# The body goes to PostgreSQL as it came.
INSERT_MANY = """
    WITH stored AS (
        INSERT INTO messages AS m (workspace_id, conversation_id, message_id, sequence, user_id, user_type, timestamp,
            content, search_vector)
        SELECT $1, conversation_id, message_id, ((SELECT nextval('message_batches')) << 14) + place, user_id, user_type,
            timestamp, convert_to(message_content, 'UTF8'), to_tsvector('pg_catalog.english', message_content)
        FROM ROWS FROM (json_to_recordset(convert_from($2, 'UTF8')::json) AS (conversation_id text, message_id text,
            user_id text, user_type text, timestamp timestamptz, message_content text)) WITH ORDINALITY
            AS input (conversation_id, message_id, user_id, user_type, timestamp, message_content, place)
        ON CONFLICT DO NOTHING
        RETURNING m.conversation_id, m.user_id, m.user_type, m.timestamp
    ), touched AS (
        INSERT INTO conversations AS c (workspace_id, conversation_id, message_count, first_message_at, last_message_at)
        SELECT $1, conversation_id, count(*), min(timestamp), max(timestamp) FROM stored
        GROUP BY conversation_id ORDER BY conversation_id
        ON CONFLICT (workspace_id, conversation_id) DO UPDATE SET
            message_count = c.message_count + excluded.message_count,
            first_message_at = least(c.first_message_at, excluded.first_message_at),
            last_message_at = greatest(c.last_message_at, excluded.last_message_at)
        RETURNING c.conversation_id, xmax <> 0 AS existed
    ), senders AS (
        INSERT INTO participants AS p (workspace_id, conversation_id, user_id, user_type, message_count,
            last_message_at)
        SELECT $1, conversation_id, user_id, max(user_type), count(*),
            max(max(timestamp)) OVER (PARTITION BY conversation_id)
        FROM stored GROUP BY conversation_id, user_id ORDER BY conversation_id, user_id
        ON CONFLICT (workspace_id, conversation_id, user_id) DO UPDATE SET
            message_count = p.message_count + excluded.message_count, last_message_at = excluded.last_message_at
    )
    SELECT (SELECT count(*) FROM stored), (SELECT array_agg(conversation_id) FROM touched WHERE existed)
"""

ALIGN = """
    UPDATE participants AS p SET last_message_at = c.last_message_at FROM conversations AS c
    WHERE c.workspace_id = $1 AND c.conversation_id = ANY ($2::text[])
    AND p.workspace_id = $1 AND p.conversation_id = c.conversation_id AND p.last_message_at <> c.last_message_at
"""

COLUMNS = """
    c.conversation_id, c.message_count, c.first_message_at, c.last_message_at, ARRAY(
        SELECT ROW(user_id, user_type, message_count) FROM participants
        WHERE workspace_id = $1 AND conversation_id = c.conversation_id
        ORDER BY message_count DESC, user_id LIMIT 100
    ), c.sentiment, c.outcome
"""

CONVERSATION = f"""
    SELECT {COLUMNS}, ARRAY(
        SELECT ROW(message_id, user_id, user_type, content, timestamp) FROM messages
        WHERE workspace_id = $1 AND conversation_id = c.conversation_id ORDER BY timestamp, sequence LIMIT $3
    )
    FROM conversations AS c WHERE c.workspace_id = $1 AND c.conversation_id = $2
"""

TOTAL = "SELECT count(*) FROM participants WHERE workspace_id = $1 AND user_id = $2"

# A page by number from the nearer end of the index, and one from a position on.
HISTORY = """
    SELECT {columns} FROM (
        SELECT conversation_id FROM participants WHERE workspace_id = $1 AND user_id = $2 {position}
        ORDER BY last_message_at {order}, conversation_id {order} OFFSET $3 LIMIT $4
    ) AS keys
    JOIN conversations AS c ON c.workspace_id = $1 AND c.conversation_id = keys.conversation_id
    ORDER BY c.last_message_at DESC, c.conversation_id DESC
"""
FIRST = HISTORY.format(columns=f"{COLUMNS}, ({TOTAL})", position="", order="DESC")
FROM_START = HISTORY.format(columns=COLUMNS, position="", order="DESC")
FROM_END = HISTORY.format(columns=COLUMNS, position="", order="ASC")
FROM_POSITION = HISTORY.format(
    columns=COLUMNS, position="AND (last_message_at, conversation_id) < ($5::text::timestamptz, $6)", order="DESC"
)

ESTIMATE = """
    EXPLAIN (FORMAT JSON) SELECT FROM messages
    WHERE workspace_id = {workspace} AND search_vector @@ websearch_to_tsquery('pg_catalog.english', {q})
"""
SIZE = "SELECT reltuples FROM pg_class WHERE oid = 'messages'::regclass"

# Few hits: they come first, and are sorted. Many: back through time until enough conversations hold one.
HITS = """
    (SELECT DISTINCT conversation_id FROM messages
    WHERE workspace_id = $1 AND search_vector @@ websearch_to_tsquery('pg_catalog.english', {q}) OFFSET 0) AS hits
    JOIN {source} ON {conditions} AND k.conversation_id = hits.conversation_id
"""
WALK = """
    {source} WHERE {conditions} AND EXISTS (
        SELECT FROM messages AS m WHERE m.workspace_id = $1 AND m.conversation_id = k.conversation_id
        AND m.search_vector @@ websearch_to_tsquery('pg_catalog.english', {q}) OFFSET 0
    )
"""
FIND = """
    WITH headline AS MATERIALIZED (
        SELECT string_agg('''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''', ' | ')::tsquery AS words
        FROM unnest(to_tsvector('pg_catalog.english', {q}))
    )
    SELECT {columns}, {matches} FROM (
        SELECT k.conversation_id FROM {found} ORDER BY k.last_message_at DESC, k.conversation_id DESC LIMIT {limit}
    ) AS keys
    JOIN conversations AS c ON c.workspace_id = $1 AND c.conversation_id = keys.conversation_id
    ORDER BY c.last_message_at DESC, c.conversation_id DESC
"""
MATCHES = """
    ARRAY(
        SELECT ROW(message_id, ts_headline('pg_catalog.english', convert_from(content, 'UTF8'), words,
            'StartSel="", StopSel="", MaxWords=30, MinWords=12, MaxFragments=1'))
        FROM (
            SELECT message_id, content FROM messages AS m, websearch_to_tsquery('pg_catalog.english', {q}) AS query
            WHERE m.workspace_id = $1 AND m.conversation_id = c.conversation_id AND m.search_vector @@ query
            ORDER BY ts_rank(m.search_vector, query) DESC, m.timestamp, m.sequence LIMIT 3
        ) AS best, headline
    )
"""

DELETE = """
    WITH gone AS (
        DELETE FROM conversations WHERE workspace_id = $1 AND conversation_id = ANY ($2::text[])
        RETURNING conversation_id, message_count
    )
    SELECT count(*), coalesce(sum(message_count), 0)::bigint,
        (SELECT count(*) FROM participants AS p JOIN gone USING (conversation_id) WHERE p.workspace_id = $1),
        (SELECT count(*) FROM summaries AS s JOIN gone USING (conversation_id) WHERE s.workspace_id = $1),
        (SELECT count(*) FROM insights AS s JOIN gone USING (conversation_id) WHERE s.workspace_id = $1),
        (SELECT count(*) FROM feedback AS f JOIN gone USING (conversation_id) WHERE f.workspace_id = $1)
    FROM gone
"""
OF_SENDER = "SELECT conversation_id FROM participants WHERE workspace_id = $1 AND user_id = $2 LIMIT $3"
