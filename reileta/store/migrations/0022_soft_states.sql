-- compatible_from: 11
-- Seats, queues and invitations of instances, kept for the next run of a server without a cluster:
-- rewritten a moment after they change. A row is a part of one instance. Without a foreign key, so
-- that no write waits for a lock of an instance.

CREATE TABLE soft_states (
    instance text   NOT NULL,
    part     int    NOT NULL,
    revision bigint NOT NULL,
    value    bytea  NOT NULL,
    PRIMARY KEY (instance, part)
);

-- One row: the number of the last run, and when it last said that it runs (ms, of the database's
-- clock).
CREATE TABLE server_runs (
    id       int    PRIMARY KEY DEFAULT 1 CHECK (id = 1),
    run      bigint NOT NULL,
    alive_at bigint NOT NULL
);
INSERT INTO server_runs (run, alive_at) VALUES (0, 0);
