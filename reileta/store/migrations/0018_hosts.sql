-- compatible_from: 11
-- Instance nodes over links: machines of the operator, of users and of services that host instances.

-- `link` grows with each link of a node; `server` is the process that has the present one.
CREATE TABLE hosts (
    id         text PRIMARY KEY,
    title      text NOT NULL,
    owner      text NOT NULL CONSTRAINT hosts_owner REFERENCES users (id) ON DELETE CASCADE,
    kind       text NOT NULL,
    region     text,
    capacity   integer NOT NULL,
    direct     text,
    token_hash bytea NOT NULL CONSTRAINT hosts_token UNIQUE,
    link       bigint NOT NULL DEFAULT 0,
    server     text,
    draining   boolean NOT NULL DEFAULT false,
    version    text,
    issued     bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    seen_at    bigint,
    fault      text,
    fault_at   bigint,
    haystack   text NOT NULL GENERATED ALWAYS AS (search_text(title)) STORED
);
CREATE INDEX hosts_by_owner ON hosts (owner);
CREATE UNIQUE INDEX hosts_by_issue ON hosts (issued);

ALTER TABLE instances
    ADD COLUMN node text CONSTRAINT instances_node REFERENCES hosts (id) ON DELETE CASCADE;
CREATE INDEX instances_by_node ON instances (node) WHERE node IS NOT NULL;
