-- compatible_from: 3
-- Moderators of instances, and the moderation log.

CREATE TABLE moderators (
    instance_id text NOT NULL
                CONSTRAINT moderators_instance REFERENCES instances (id) ON DELETE CASCADE,
    user_ref    text NOT NULL,
    by_ref      text NOT NULL,
    issued      bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    created_at  bigint NOT NULL,
    PRIMARY KEY (instance_id, user_ref)
);

-- An entry outlives its instance: so there is no foreign key, and the entry names the owner, who may
-- still read it.
CREATE TABLE moderations (
    number      bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    instance_id text NOT NULL,
    owner       text NOT NULL,
    type        text NOT NULL,
    user_ref    text NOT NULL,
    by_ref      text NOT NULL,
    reason      text,
    until       bigint,
    created_at  bigint NOT NULL,
    CONSTRAINT moderations_once UNIQUE (instance_id, created_at, type, user_ref, by_ref)
);
CREATE INDEX moderations_by_instance ON moderations (instance_id, number);
