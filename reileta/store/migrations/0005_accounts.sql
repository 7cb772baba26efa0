-- compatible_from: 5
-- Quotas, known networks of users, and the change feed.

-- The size of a document, so that a user's documents can be summed up without reading them.
ALTER TABLE resources ADD COLUMN bytes bigint NOT NULL DEFAULT 0;
UPDATE resources SET bytes = octet_length(title) + octet_length(data::text);
CREATE FUNCTION weigh_resource() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.bytes := octet_length(NEW.title) + octet_length(NEW.data::text);
    RETURN NEW;
END
$$;
CREATE TRIGGER resources_bytes BEFORE INSERT OR UPDATE OF title, data ON resources
    FOR EACH ROW EXECUTE FUNCTION weigh_resource();
DROP INDEX resources_by_owner;
CREATE INDEX resources_by_owner ON resources (owner) INCLUDE (bytes);

-- The order in which sessions were opened: two can have equal milliseconds.
ALTER TABLE sessions ADD COLUMN issued bigint NOT NULL GENERATED ALWAYS AS IDENTITY;

-- The moderation log keeps the newest entries of each owner.
CREATE INDEX moderations_by_owner ON moderations (owner, number);

-- The networks from which a user has logged in, as SHA-256: guesses from elsewhere can't lock the
-- user out there.
CREATE TABLE known_networks (
    user_id text NOT NULL
            CONSTRAINT known_networks_user REFERENCES users (id) ON DELETE CASCADE,
    network bytea NOT NULL,
    used_at bigint NOT NULL,
    PRIMARY KEY (user_id, network)
);

-- The change feed: servers poll it for changes by other processes (store/change_feed.py). A row's
-- origin is the connection's application_name, which is different for each process.
CREATE TABLE changes (
    number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    kind   text NOT NULL CHECK (kind IN ('user', 'session', 'token', 'instance')),
    id     text NOT NULL,
    origin text NOT NULL DEFAULT current_setting('application_name'),
    xact   xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX changes_by_xact ON changes (xact);
CREATE INDEX changes_by_time ON changes (at);
CREATE INDEX changes_by_id ON changes (id);

CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (kind, id) VALUES (TG_ARGV[0], OLD.id);
    RETURN NULL;
END
$$;
CREATE FUNCTION note_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (kind, id)
        VALUES ('token', encode(coalesce(OLD.first_hash, OLD.access_hash), 'hex'));
    RETURN NULL;
END
$$;
CREATE TRIGGER users_changed AFTER UPDATE ON users
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION note_change('user');
-- A deleted user has no row of its own; its sessions, which are deleted with it, have one each.
CREATE FUNCTION forget_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM changes WHERE id = OLD.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER users_gone AFTER DELETE ON users
    FOR EACH ROW EXECUTE FUNCTION forget_changes();
CREATE TRIGGER sessions_over AFTER UPDATE OF ended_at ON sessions
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
    EXECUTE FUNCTION note_change('session');
CREATE TRIGGER sessions_gone AFTER DELETE ON sessions
    FOR EACH ROW WHEN (OLD.ended_at IS NULL) EXECUTE FUNCTION note_change('session');
CREATE TRIGGER tokens_killed AFTER UPDATE OF killed_at ON tokens
    FOR EACH ROW WHEN (OLD.killed_at IS NULL AND NEW.killed_at IS NOT NULL)
    EXECUTE FUNCTION note_token();
CREATE TRIGGER tokens_gone AFTER DELETE ON tokens
    FOR EACH ROW WHEN (OLD.killed_at IS NULL) EXECUTE FUNCTION note_token();
CREATE TRIGGER instances_inherited AFTER UPDATE OF owner ON instances
    FOR EACH ROW WHEN (OLD.owner <> NEW.owner) EXECUTE FUNCTION note_change('instance');
