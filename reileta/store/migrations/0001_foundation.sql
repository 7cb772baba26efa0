-- compatible_from: 1
-- Users, sessions, tokens, worlds, instances and bans.
-- Times are milliseconds since 1970 UTC. A reference to a user is text without a foreign key where
-- it can be a user of another server (owner, user_ref, by_ref).

-- Integer ids of the session API: stable, and unique over users, worlds and all resources.
CREATE SEQUENCE numbers AS bigint;

CREATE TABLE server (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    id          text NOT NULL,
    title       text NOT NULL,
    description text,
    created_at  bigint NOT NULL,
    updated_at  bigint NOT NULL
);

CREATE TABLE users (
    id            text PRIMARY KEY,
    number        bigint NOT NULL UNIQUE DEFAULT nextval('numbers'),
    -- Marks the server's own two accounts, since their names can change.
    system        text UNIQUE CHECK (system IN ('server', 'admin')),
    username      text NOT NULL,
    displayname   text NOT NULL,
    description   text,
    email         text,
    password_hash text,
    status        text NOT NULL DEFAULT 'online' CHECK (status IN ('online', 'away', 'busy')),
    tags          text[] NOT NULL DEFAULT '{}',
    autopilot     boolean NOT NULL DEFAULT false,
    home          text,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL,
    haystack      text NOT NULL GENERATED ALWAYS AS (
        lower(username || E'\n' || displayname || E'\n' || coalesce(description, ''))
    ) STORED
);
CREATE UNIQUE INDEX users_username ON users (lower(username));

CREATE TABLE sessions (
    id         text PRIMARY KEY,
    user_id    text NOT NULL CONSTRAINT sessions_user REFERENCES users (id) ON DELETE CASCADE,
    state      jsonb NOT NULL DEFAULT '{}',
    version    bigint NOT NULL DEFAULT 0,
    created_at bigint NOT NULL,
    last_seen  bigint NOT NULL,
    ended_at   bigint
);
CREATE INDEX sessions_by_user ON sessions (user_id);

CREATE TABLE tokens (
    access_hash     bytea PRIMARY KEY,
    refresh_hash    bytea UNIQUE,
    -- The order in which they were issued: two can have equal milliseconds.
    issued          bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    session_id      text NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    user_id         text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at      bigint NOT NULL,
    access_expires  bigint NOT NULL,
    refresh_expires bigint NOT NULL,
    killed_at       bigint
);
CREATE INDEX tokens_by_user ON tokens (user_id);
CREATE INDEX tokens_by_session ON tokens (session_id);

CREATE TABLE worlds (
    id          text PRIMARY KEY,
    number      bigint NOT NULL UNIQUE DEFAULT nextval('numbers'),
    title       text NOT NULL,
    description text,
    capacity    integer NOT NULL CHECK (capacity BETWEEN 1 AND 1024),
    owner       text NOT NULL,
    tags        text[] NOT NULL DEFAULT '{}',
    created_at  bigint NOT NULL,
    updated_at  bigint NOT NULL,
    haystack    text NOT NULL GENERATED ALWAYS AS (
        lower(title || E'\n' || coalesce(description, ''))
    ) STORED
);
CREATE INDEX worlds_by_owner ON worlds (owner);

CREATE TABLE instances (
    id          text PRIMARY KEY,
    issued      bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    name        text NOT NULL CONSTRAINT instances_name UNIQUE,
    title       text,
    description text,
    world       text NOT NULL,
    -- The world without its version: `w_…@server` for `w_…:1.2@server`.
    world_base  text NOT NULL GENERATED ALWAYS AS (
        regexp_replace(world, '^([^:@]*):[^@]*', '\1')
    ) STORED,
    owner       text NOT NULL,
    capacity    integer NOT NULL CHECK (capacity BETWEEN 1 AND 1024),
    tags        text[] NOT NULL DEFAULT '{}',
    empty_since bigint,
    created_at  bigint NOT NULL,
    updated_at  bigint NOT NULL,
    haystack    text NOT NULL GENERATED ALWAYS AS (
        lower(name || E'\n' || coalesce(title, '') || E'\n' || coalesce(description, ''))
    ) STORED
);
CREATE INDEX instances_by_world ON instances (world_base);
CREATE INDEX instances_by_owner ON instances (owner);
CREATE INDEX instances_empty ON instances (empty_since) WHERE empty_since IS NOT NULL;

CREATE TABLE bans (
    instance_id text NOT NULL CONSTRAINT bans_instance REFERENCES instances (id) ON DELETE CASCADE,
    user_ref    text NOT NULL,
    until       bigint,
    reason      text,
    by_ref      text NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (instance_id, user_ref)
);

-- Searches look for text anywhere in a haystack, for which trigrams are the index. They come with
-- PostgreSQL's contrib package; a database without it, or an account that may not install it,
-- searches without an index.
DO $$
BEGIN
    CREATE EXTENSION IF NOT EXISTS pg_trgm;
    CREATE INDEX users_haystack ON users USING gin (haystack gin_trgm_ops);
    CREATE INDEX worlds_haystack ON worlds USING gin (haystack gin_trgm_ops);
    CREATE INDEX instances_haystack ON instances USING gin (haystack gin_trgm_ops);
EXCEPTION
    WHEN undefined_file OR insufficient_privilege OR feature_not_supported OR undefined_object THEN
        RAISE NOTICE 'no pg_trgm: searches go without an index';
END
$$;
