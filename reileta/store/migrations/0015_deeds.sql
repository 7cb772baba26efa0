-- compatible_from: 11
-- Orders to instances that were carried out in a cluster, with their answers: written in the
-- transaction of the order, so that a repetition at the next host finds it done. Kept for minutes.
CREATE TABLE deeds_done (
    deed   uuid PRIMARY KEY,
    answer bytea NOT NULL,
    at     bigint NOT NULL
);
CREATE INDEX deeds_done_by_time ON deeds_done (at);
