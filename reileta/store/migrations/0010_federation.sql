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
    session_id text UNIQUE NOT NULL,
    first_seen bigint NOT NULL,
    last_seen bigint NOT NULL
);
CREATE INDEX guests_by_server ON guests (server);

CREATE TABLE integrity_tokens (
    hash bytea PRIMARY KEY,
    id text UNIQUE NOT NULL,
    user_ref text NOT NULL REFERENCES guests ON DELETE CASCADE,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    revoked_at bigint
);
CREATE INDEX integrity_tokens_by_user ON integrity_tokens (user_ref);

-- Integrity tokens that other servers have issued to users of this one, to revoke them there.
CREATE TABLE visits (
    id text NOT NULL,
    server text NOT NULL,
    user_id text NOT NULL,
    session_id text NOT NULL,
    expires_at bigint NOT NULL,
    revoke_since bigint,
    PRIMARY KEY (server, id)
);
CREATE INDEX visits_by_user ON visits (user_id);

CREATE TABLE vouched_follows (
    follower text NOT NULL REFERENCES guests ON DELETE CASCADE,
    followed text NOT NULL,
    PRIMARY KEY (follower, followed)
);
CREATE INDEX vouched_follows_by_followed ON vouched_follows (followed);
