-- The session API: states, the chains of keys of tokens, resources, and who has them.
-- Times are milliseconds since 1970 UTC.

-- What clients give is kept letter for letter, which jsonb does not: it refuses \u0000, and writes
-- 1e300 out.
ALTER TABLE sessions ALTER COLUMN state DROP DEFAULT;
ALTER TABLE sessions ALTER COLUMN state TYPE json USING state::json;
ALTER TABLE sessions ALTER COLUMN state SET DEFAULT '{}';
CREATE INDEX sessions_alive ON sessions (created_at) WHERE ended_at IS NULL;

-- However a session ends, its state is gone, and no writer of before is up to date; see below for
-- its resource.
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

-- A token is known by the hash of its first access key (null: it still has that), has the keys of
-- its own columns, and those before until these are first used.
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

-- Refresh keys that were used up: using one again kills its token.
CREATE TABLE spent_refreshes (
    refresh_hash bytea PRIMARY KEY,
    token        bigint NOT NULL REFERENCES tokens (issued) ON DELETE CASCADE,
    expires      bigint NOT NULL
);
CREATE INDEX spent_refreshes_by_token ON spent_refreshes (token);

-- Resources of all types but worlds, which have their own table. They are private to their owner,
-- and go with it.
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

-- A world's version grows whoever changes it, through either face.
ALTER TABLE worlds ADD COLUMN version bigint NOT NULL DEFAULT 1;
CREATE FUNCTION count_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER worlds_version BEFORE UPDATE ON worlds
    FOR EACH ROW EXECUTE FUNCTION count_version();

-- Who has what: a resource (or world) is had by one session, for it has one row; a session has one
-- resource, for it stands in one row. The row is made when it is first needed, and stays for its
-- fence, which only grows. It is the lock of whoever changes the resource.
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

-- However a resource goes, what hung on its number goes too. Numbers are never given out again.
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
