-- compatible_from: 8
-- Suspended accounts, the audit log, and the accounts of load tests.

-- A user with the tag avr:disabled is suspended until that time; NULL: until it is lifted.
ALTER TABLE users ADD COLUMN suspended_until bigint;
ALTER TABLE users ADD COLUMN suspension_reason text;
CREATE INDEX users_suspended_until ON users (suspended_until) WHERE suspended_until IS NOT NULL;

-- What admins and commands did. It outlives the accounts that it names, so it holds their names.
CREATE TABLE audit_log (
    number      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    created_at  bigint NOT NULL,
    via         text NOT NULL CHECK (via IN ('http', 'socket', 'command')),
    -- The admin; for a command NULL, and the name of the operating system's account.
    by_id       text,
    by_name     text NOT NULL,
    action      text NOT NULL,
    target      text,
    target_name text,
    details     json NOT NULL DEFAULT '{}',
    -- NULL until the action has ended: if the server was killed meanwhile, nobody knows.
    result      text CHECK (result IN ('done', 'refused')),
    error       integer
);
CREATE INDEX audit_log_by_time ON audit_log (created_at);
CREATE INDEX audit_log_by_admin ON audit_log (by_id, number);
CREATE INDEX audit_log_by_target ON audit_log (target, number);

-- Servers learn of what commands did, so that it stands in their logs too.
ALTER TABLE changes DROP CONSTRAINT changes_kind_check;
ALTER TABLE changes ADD CONSTRAINT changes_kind_check
    CHECK (kind IN ('user', 'session', 'token', 'instance', 'audit'));
CREATE FUNCTION note_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (kind, id) VALUES ('audit', NEW.number::text);
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_log_written AFTER INSERT ON audit_log
    FOR EACH ROW WHEN (NEW.via = 'command') EXECUTE FUNCTION note_audit();

-- The batch of a load test's account; NULL for all other accounts. Those from before this column
-- have a name that no user chose: nobody registers without a password.
ALTER TABLE users ADD COLUMN bot_batch text;
UPDATE users SET bot_batch = substring(username FROM '^(bot_[0-9a-f]{10})_[0-9]+$')
    WHERE password_hash IS NULL AND system IS NULL
    AND username ~ '^bot_[0-9a-f]{10}_[0-9]+$';
CREATE INDEX users_by_bot_batch ON users (bot_batch, number) WHERE bot_batch IS NOT NULL;
