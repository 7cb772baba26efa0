-- compatible_from: 11
-- Mutes of instances, as bans are stored. Versions that don't know the table keep mutes in memory.

CREATE TABLE mutes (
    instance_id text NOT NULL CONSTRAINT mutes_instance REFERENCES instances (id) ON DELETE CASCADE,
    user_ref    text NOT NULL,
    until       bigint,
    reason      text,
    by_ref      text NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (instance_id, user_ref)
);
