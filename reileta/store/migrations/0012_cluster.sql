-- compatible_from: 11
-- Nodes of a cluster with their leases, and the place of each instance.

-- A node is one run of a server process. Rows change twice a second: room for updates on the same
-- page. `beat` grows with each renewal; a row that is fenced never changes again.
CREATE TABLE nodes (
    id             text PRIMARY KEY,
    name           text NOT NULL,
    roles          text[] NOT NULL,
    version        text NOT NULL,
    started_at     bigint NOT NULL,
    beat           bigint NOT NULL DEFAULT 0,
    nats_ok        boolean NOT NULL DEFAULT false,
    asked_to_yield boolean NOT NULL DEFAULT false,
    fenced_at      bigint,
    fenced_by      text
) WITH (fillfactor = 50);

-- An instance without a row has never had a host. The epoch grows with each change of the host.
CREATE TABLE places (
    instance_id text PRIMARY KEY
                CONSTRAINT places_instance REFERENCES instances (id) ON DELETE CASCADE,
    node        text,
    epoch       bigint NOT NULL
);
CREATE INDEX places_by_node ON places (node) WHERE node IS NOT NULL;
