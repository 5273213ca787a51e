-- Distributes the schema over a Citus cluster (12 or newer) by workspace: psql --file deploy/citus.sql, once, as the owner,
-- right after `alembic upgrade head`. A workspace's rows are together on one node; every statement names the workspace, so
-- it goes to that node alone. A test holds this file, the keys and the statements together.
--
-- Citus itself was not available to run this against. Try first of all to store into a conversation that exists, and to
-- delete one: these statements write several tables and call align_participants() or note_deleted(), which query
-- distributed tables from within a node, as the triggers below do. That takes the first setting below, and to have
-- triggers at all the second; should Citus refuse a statement all the same, it has to be sent in parts.
BEGIN;

ALTER DATABASE :"DBNAME" SET citus.allow_nested_distributed_execution = on;
SET citus.enable_unsafe_triggers = on;

-- On every node, since rows of all workspaces refer to them, and their other keys are unique across workspaces.
SELECT create_reference_table('workspaces');
SELECT create_reference_table('users');

SELECT create_distributed_table('conversations', 'workspace_id');
SELECT create_distributed_table('messages', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('participants', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('summaries', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('insights', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('feedback', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('analysis_claims', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('jobs', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('job_items', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('idempotency_keys', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('memberships', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('api_keys', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('sessions', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('audit_log', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('trend_counts', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('trend_changes', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('topic_models', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('conversation_topics', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('webhooks', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('webhook_deliveries', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('llm_calls', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('budgets', 'workspace_id', colocate_with => 'conversations');
SELECT create_distributed_table('spending', 'workspace_id', colocate_with => 'conversations');

-- Stay on the coordinator: oauth_states, alembic_version, and the queue in the schema pgqueuer with its triggers. They are
-- small, and no row of another table refers to them. A job and its place in the queue are then one transaction on two
-- nodes, which Citus commits in two phases (max_prepared_transactions above 0 on the nodes).
--
-- Triggers on conversations, which note and count what trends are made of: trends_new, trends_moved, trends_labelled and
-- trends_gone. Each touches only rows of its own workspace, which are on its own node. The last one reads the rows that
-- a statement has deleted (REFERENCING OLD TABLE); should Citus refuse that, make it FOR EACH ROW.

COMMIT;
