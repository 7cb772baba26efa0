-- compatible_from: 10
-- Other servers: what is known of them, the rules about them, and the tokens between them and us.
CREATE TABLE servers (
    address text PRIMARY KEY,
    host text NOT NULL,
    secure boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('new', 'known', 'pending')),
    public_key text,
    key_since bigint,
    offered_key text,
    offered_at bigint,
    gateway_http text,
    gateway_ws text,
    version text,
    first_seen bigint NOT NULL,
    last_seen bigint
);

CREATE TABLE server_rules (
    pattern text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('allow', 'block', 'silence')),
    reason text,
    by_ref text NOT NULL,
    until bigint,
    created_at bigint NOT NULL
);

-- Running servers learn of rules that commands and other servers changed.
ALTER TABLE changes DROP CONSTRAINT changes_kind_check;
ALTER TABLE changes ADD CONSTRAINT changes_kind_check
    CHECK (kind IN ('user', 'session', 'token', 'instance', 'audit', 'server_rule'));
CREATE FUNCTION note_server_rule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (kind, id) VALUES ('server_rule', coalesce(NEW.pattern, OLD.pattern));
    RETURN NULL;
END
$$;
CREATE TRIGGER server_rules_changed AFTER INSERT OR UPDATE OR DELETE ON server_rules
    FOR EACH ROW EXECUTE FUNCTION note_server_rule();

-- Challenges that this server has begun, until the other server fetches them. Their ids are secret.
CREATE TABLE challenges (
    id_hash bytea PRIMARY KEY,
    id_hint text NOT NULL,
    server text NOT NULL,
    nonce text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    fetched_at bigint
);
CREATE INDEX challenges_by_expiry ON challenges (expires_at);

-- Tokens that this server has issued to others.
CREATE TABLE server_tokens (
    hash bytea PRIMARY KEY,
    id text UNIQUE NOT NULL,
    server text NOT NULL REFERENCES servers ON DELETE CASCADE,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    revoked_at bigint
);
CREATE INDEX server_tokens_by_server ON server_tokens (server);

-- Tokens that other servers have issued to this one, encrypted with a key derived from its own.
CREATE TABLE peer_tokens (
    server text PRIMARY KEY REFERENCES servers ON DELETE CASCADE,
    id text NOT NULL,
    sealed bytea NOT NULL,
    issued_at bigint NOT NULL,
    expires_at bigint NOT NULL
);

-- Users of other servers who have been here.
CREATE TABLE guests (
    user_ref text PRIMARY KEY,
    server text NOT NULL REFERENCES servers ON DELETE CASCADE,
    displayname text NOT NULL,
    thumbnail text,
    -- Kept across tokens, so that a guest who comes back has the same player.
    session_id text UNIQUE NOT NULL,
    first_seen bigint NOT NULL,
    last_seen bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX guests_by_server ON guests (server, first_seen);
CREATE INDEX guests_by_visit ON guests (last_seen);

CREATE TABLE integrity_tokens (
    hash bytea PRIMARY KEY,
    id text UNIQUE NOT NULL,
    issued bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    user_ref text NOT NULL REFERENCES guests ON DELETE CASCADE,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    revoked_at bigint
);
CREATE INDEX integrity_tokens_by_user ON integrity_tokens (user_ref);
CREATE INDEX integrity_tokens_by_expiry ON integrity_tokens (expires_at);

-- Whom of our users a guest follows, as its server says. It counts as long as the guest has a valid
-- token.
CREATE TABLE vouched_follows (
    follower text NOT NULL REFERENCES guests ON DELETE CASCADE,
    followed text NOT NULL REFERENCES users ON DELETE CASCADE,
    following_at bigint NOT NULL,
    PRIMARY KEY (follower, followed)
);
CREATE INDEX vouched_follows_by_followed ON vouched_follows (followed);

-- Integrity tokens that other servers have issued to users of this one, to revoke them there.
CREATE TABLE visits (
    id text NOT NULL,
    server text NOT NULL,
    issued bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    user_id text NOT NULL,
    session_id text NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    -- Since when the token is to be revoked at the other server, by the time of this one.
    revoke_since bigint,
    PRIMARY KEY (server, id)
);
CREATE INDEX visits_by_user ON visits (user_id);
CREATE INDEX visits_by_session ON visits (session_id);
CREATE INDEX visits_by_expiry ON visits (expires_at);
CREATE INDEX visits_to_revoke ON visits (revoke_since) WHERE revoke_since IS NOT NULL;

-- However a session ends (a logout, a suspension, a deleted account, a command), the tokens that it
-- got elsewhere are to be revoked there.
CREATE FUNCTION end_visits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE visits SET revoke_since = coalesce(
        CASE WHEN TG_OP = 'UPDATE' THEN NEW.ended_at ELSE OLD.ended_at END,
        (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
    WHERE session_id = OLD.id AND revoke_since IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER sessions_end_visits AFTER UPDATE OF ended_at ON sessions
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL)
    EXECUTE FUNCTION end_visits();
CREATE TRIGGER sessions_gone_visits AFTER DELETE ON sessions
    FOR EACH ROW EXECUTE FUNCTION end_visits();

-- A logout that leaves the session without a valid token ends them, too.
CREATE FUNCTION end_visits_of_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE visits SET revoke_since = NEW.killed_at
    WHERE session_id = NEW.session_id AND revoke_since IS NULL AND NOT EXISTS (
        SELECT 1 FROM tokens
        WHERE tokens.session_id = NEW.session_id AND killed_at IS NULL
        AND greatest(access_expires, refresh_expires) > NEW.killed_at
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER tokens_end_visits AFTER UPDATE OF killed_at ON tokens
    FOR EACH ROW WHEN (OLD.killed_at IS NULL AND NEW.killed_at IS NOT NULL)
    EXECUTE FUNCTION end_visits_of_token();

-- Earlier versions stored the default ports of other servers, which their canonical addresses leave
-- out. Rows that become the same are one.
DELETE FROM follows WHERE followed ~ ':(443|80)$' AND EXISTS (
    SELECT 1 FROM follows other WHERE other.follower = follows.follower
    AND other.followed < follows.followed
    AND regexp_replace(other.followed, ':(443|80)$', '')
        = regexp_replace(follows.followed, ':(443|80)$', ''));
UPDATE follows SET followed = regexp_replace(followed, ':(443|80)$', '')
    WHERE followed ~ ':(443|80)$';
DELETE FROM bans WHERE user_ref ~ ':(443|80)$' AND EXISTS (
    SELECT 1 FROM bans other WHERE other.instance_id = bans.instance_id
    AND other.user_ref < bans.user_ref
    AND regexp_replace(other.user_ref, ':(443|80)$', '')
        = regexp_replace(bans.user_ref, ':(443|80)$', ''));
UPDATE bans SET user_ref = regexp_replace(user_ref, ':(443|80)$', '')
    WHERE user_ref ~ ':(443|80)$';
DELETE FROM moderators WHERE user_ref ~ ':(443|80)$' AND EXISTS (
    SELECT 1 FROM moderators other WHERE other.instance_id = moderators.instance_id
    AND other.user_ref < moderators.user_ref
    AND regexp_replace(other.user_ref, ':(443|80)$', '')
        = regexp_replace(moderators.user_ref, ':(443|80)$', ''));
UPDATE moderators SET user_ref = regexp_replace(user_ref, ':(443|80)$', '')
    WHERE user_ref ~ ':(443|80)$';
UPDATE users SET home = regexp_replace(home, ':(443|80)$', '') WHERE home ~ '@.*:(443|80)$';
