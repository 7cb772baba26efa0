-- compatible_from: 11
-- What the processes that use a database one after the other must agree on: the mutes of instances,
-- and the server's key.

CREATE TABLE mutes (
    instance_id text NOT NULL CONSTRAINT mutes_instance REFERENCES instances (id) ON DELETE CASCADE,
    user_ref    text NOT NULL,
    until       bigint,
    reason      text,
    by_ref      text NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (instance_id, user_ref)
);

-- The public key by which other servers know this one; NULL: no server of this version has started.
ALTER TABLE server ADD COLUMN public_key text;
