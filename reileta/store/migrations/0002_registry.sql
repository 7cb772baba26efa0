-- compatible_from: 2
-- Follows, services, assets of worlds, pictures, and their files.
-- Times are milliseconds since 1970 UTC. A reference to a user is the bare id of a user of this
-- server, or the UserIDAt of another server's.

-- The https URL of the server's icon.
ALTER TABLE server ADD COLUMN icon text;

-- Both sides are references, so that a friend can be of another server. Two rows, one each way,
-- are a friendship; the primary key finds both.
CREATE TABLE follows (
    follower     text NOT NULL,
    followed     text NOT NULL,
    following_at bigint NOT NULL,
    PRIMARY KEY (follower, followed),
    CHECK (follower <> followed)
);
CREATE INDEX follows_by_followed ON follows (followed, following_at);

CREATE TABLE services (
    id          text PRIMARY KEY,
    issued      bigint NOT NULL GENERATED ALWAYS AS IDENTITY UNIQUE,
    title       text NOT NULL,
    description text,
    url         text,
    owner       text NOT NULL,
    tags        text[] NOT NULL DEFAULT '{}',
    created_at  bigint NOT NULL,
    updated_at  bigint NOT NULL,
    haystack    text NOT NULL GENERATED ALWAYS AS (
        lower(id || E'\n' || title || E'\n' || coalesce(description, ''))
    ) STORED
);
CREATE INDEX services_by_owner ON services (owner);

-- Files, by the SHA-256 of their content, in hex. A transaction that references a file or deletes
-- one must hold the lock of its row (store/blobs.py). A file that no row references is deleted some
-- time after it was last touched; the foreign keys below prevent the deletion of other files.
CREATE TABLE blobs (
    hash       text PRIMARY KEY CHECK (hash ~ '^[0-9a-f]{64}$'),
    size       bigint NOT NULL CHECK (size >= 0),
    created_at bigint NOT NULL,
    touched_at bigint NOT NULL
);
CREATE INDEX blobs_by_touch ON blobs (touched_at);

CREATE TABLE assets (
    id         text PRIMARY KEY,
    world_id   text NOT NULL CONSTRAINT assets_world REFERENCES worlds (id) ON DELETE CASCADE,
    version    text NOT NULL,
    engine     text NOT NULL,
    platform   text NOT NULL,
    -- Empty, at another place (url), or stored here (hash, size).
    url        text,
    hash       text REFERENCES blobs (hash),
    size       bigint,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    CONSTRAINT assets_build UNIQUE (world_id, version, engine, platform),
    CHECK (url IS NULL OR hash IS NULL),
    CHECK ((hash IS NULL) = (size IS NULL))
);
CREATE INDEX assets_by_hash ON assets (hash) WHERE hash IS NOT NULL;

CREATE TABLE images (
    user_id    text CONSTRAINT images_user REFERENCES users (id) ON DELETE CASCADE,
    world_id   text CONSTRAINT images_world REFERENCES worlds (id) ON DELETE CASCADE,
    kind       text NOT NULL CHECK (kind IN ('thumbnail', 'banner')),
    hash       text NOT NULL REFERENCES blobs (hash),
    width      integer NOT NULL,
    height     integer NOT NULL,
    updated_at bigint NOT NULL,
    CHECK (num_nonnulls(user_id, world_id) = 1)
);
CREATE UNIQUE INDEX images_of_user ON images (user_id, kind) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX images_of_world ON images (world_id, kind) WHERE world_id IS NOT NULL;
CREATE INDEX images_by_hash ON images (hash);

-- Lists filter by tag: an array index finds rare tags.
CREATE INDEX users_tags ON users USING gin (tags);
CREATE INDEX worlds_tags ON worlds USING gin (tags);
CREATE INDEX instances_tags ON instances USING gin (tags);
CREATE INDEX services_tags ON services USING gin (tags);

-- As in 0001: trigrams where the database has them. An index without a pending list costs a little
-- more when something is written, and no search then has to read what was written since.
DO $$
DECLARE
    haystack text;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
        CREATE INDEX services_haystack ON services USING gin (haystack gin_trgm_ops);
        FOREACH haystack IN ARRAY ARRAY['users', 'worlds', 'instances', 'services'] LOOP
            EXECUTE format('ALTER INDEX IF EXISTS %I SET (fastupdate = off)', haystack || '_haystack');
        END LOOP;
    END IF;
END
$$;
