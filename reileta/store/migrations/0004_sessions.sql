-- compatible_from: 4
-- The session API: states, key chains of tokens, resources, and leases.
-- Times are milliseconds since 1970 UTC.

-- Text, since jsonb would change what clients send: it refuses \u0000, and writes 1e300 out in full.
ALTER TABLE sessions ALTER COLUMN state DROP DEFAULT;
ALTER TABLE sessions ALTER COLUMN state TYPE json USING state::json;
ALTER TABLE sessions ALTER COLUMN state SET DEFAULT '{}';
CREATE INDEX sessions_alive ON sessions (created_at) WHERE ended_at IS NULL;

-- However a session ends, its state is deleted and its version changes, so that earlier writers
-- fail; see below for its resource.
CREATE FUNCTION clear_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.state := '{}';
    NEW.version := OLD.version + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER sessions_ending BEFORE UPDATE OF ended_at ON sessions
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
    EXECUTE FUNCTION clear_state();

-- A token is identified by the hash of its first access key (null: still the current one). Its keys
-- are those of its own columns, and the ones before them until these are first used.
ALTER TABLE tokens
    ADD COLUMN first_hash            bytea UNIQUE,
    ADD COLUMN prior_access_hash     bytea UNIQUE,
    ADD COLUMN prior_refresh_hash    bytea UNIQUE,
    ADD COLUMN prior_access_expires  bigint,
    ADD COLUMN prior_refresh_expires bigint,
    ADD CONSTRAINT tokens_issued UNIQUE (issued),
    ADD CONSTRAINT tokens_prior CHECK (
        num_nulls(prior_access_hash, prior_access_expires, prior_refresh_expires) IN (0, 3)
    );

-- Spent refresh keys: using one again revokes its token.
CREATE TABLE spent_refreshes (
    refresh_hash bytea PRIMARY KEY,
    token        bigint NOT NULL REFERENCES tokens (issued) ON DELETE CASCADE,
    expires      bigint NOT NULL
);
CREATE INDEX spent_refreshes_by_token ON spent_refreshes (token);

-- Resources of all types except worlds, which have their own table. They are private to their owner,
-- and are deleted with it.
CREATE TABLE resources (
    number     bigint PRIMARY KEY DEFAULT nextval('numbers'),
    type       text NOT NULL CHECK (type <> 'world'),
    owner      text NOT NULL CONSTRAINT resources_owner REFERENCES users (id) ON DELETE CASCADE,
    title      text NOT NULL,
    data       json NOT NULL,
    version    bigint NOT NULL DEFAULT 1,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    haystack   text NOT NULL GENERATED ALWAYS AS (lower(title)) STORED
);
CREATE INDEX resources_by_owner ON resources (owner);
CREATE INDEX resources_by_type ON resources (type, number);

-- A world's version grows with each change, through the registry API or the session API.
ALTER TABLE worlds ADD COLUMN version bigint NOT NULL DEFAULT 1;
CREATE FUNCTION count_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER worlds_version BEFORE UPDATE ON worlds
    FOR EACH ROW EXECUTE FUNCTION count_version();

-- Leases: a resource (or world) has one row, so at most one session holds it; a session is in at
-- most one row, so it holds at most one resource. The row is created when it is first needed and
-- stays, since its fence must only grow. A transaction that changes the resource locks it.
CREATE TABLE leases (
    number     bigint PRIMARY KEY,
    type       text NOT NULL,
    fence      bigint NOT NULL DEFAULT 0,
    session_id text CONSTRAINT leases_session UNIQUE REFERENCES sessions (id) ON DELETE SET NULL,
    until      bigint NOT NULL DEFAULT 0
);
CREATE INDEX leases_held ON leases (until) WHERE session_id IS NOT NULL;

CREATE FUNCTION release_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE leases SET session_id = NULL WHERE session_id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER sessions_ended AFTER UPDATE OF ended_at ON sessions
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
    EXECUTE FUNCTION release_lease();

CREATE TABLE shares (
    number  bigint NOT NULL,
    user_id text NOT NULL CONSTRAINT shares_user REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (number, user_id)
);
CREATE INDEX shares_by_user ON shares (user_id);

-- However a resource is deleted, the rows with its number are deleted. Numbers are never reused.
CREATE FUNCTION forget_number() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM leases WHERE number = OLD.number;
    DELETE FROM shares WHERE number = OLD.number;
    RETURN NULL;
END
$$;
CREATE TRIGGER resources_gone AFTER DELETE ON resources
    FOR EACH ROW EXECUTE FUNCTION forget_number();
CREATE TRIGGER worlds_gone AFTER DELETE ON worlds
    FOR EACH ROW EXECUTE FUNCTION forget_number();
