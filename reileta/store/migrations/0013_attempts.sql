-- compatible_from: 11
-- Attempts to log in, to register and to refresh, counted for all nodes of a cluster together. `key`
-- is a hash; `full_at` is when its allowance is full again, in seconds of the database's clock. After
-- a crash of the database, the table is empty: it is only about the last minutes.
CREATE UNLOGGED TABLE attempts (
    key     bytea PRIMARY KEY,
    full_at double precision NOT NULL
);
CREATE INDEX attempts_by_time ON attempts (full_at);
