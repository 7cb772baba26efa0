-- compatible_from: 7
-- For a short time after a refresh, the same refresh key gives the same new keys again. They are made
-- again from the refresh key, which is not stored, and from the seed here.

-- How the refresh key before the current one was exchanged for it; the time is of the database's
-- clock.
ALTER TABLE tokens
    ADD COLUMN rotation_seed bytea,
    ADD COLUMN rotated_at    bigint,
    ADD CONSTRAINT tokens_rotation CHECK (num_nulls(rotation_seed, rotated_at) IN (0, 2));

-- The same for a spent refresh key; successor is the hash of the refresh key that it was exchanged
-- for. Null: it was not exchanged, or too long ago.
ALTER TABLE spent_refreshes
    ADD COLUMN seed       bytea,
    ADD COLUMN successor  bytea,
    ADD COLUMN rotated_at bigint,
    ADD CONSTRAINT spent_refreshes_rotation CHECK (num_nulls(seed, successor, rotated_at) IN (0, 3));
