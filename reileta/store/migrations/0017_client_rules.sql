-- compatible_from: 11
-- Rules about clients: networks, user agents and accounts that are refused.

CREATE TABLE client_rules (
    kind text NOT NULL CHECK (kind IN ('network', 'agent', 'account')),
    pattern text NOT NULL,
    reason text,
    by_ref text NOT NULL,
    until bigint,
    created_at bigint NOT NULL,
    name text PRIMARY KEY GENERATED ALWAYS AS (kind || ':' || pattern) STORED
);

-- Running servers learn of rules that commands and other servers changed.
ALTER TABLE changes DROP CONSTRAINT changes_kind_check;
ALTER TABLE changes ADD CONSTRAINT changes_kind_check CHECK (kind IN (
    'user', 'session', 'token', 'instance', 'audit', 'server_rule', 'client_rule'
));
CREATE FUNCTION note_client_rule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (kind, id) VALUES ('client_rule', coalesce(NEW.kind, OLD.kind));
    RETURN NULL;
END
$$;
CREATE TRIGGER client_rules_changed AFTER INSERT OR UPDATE OR DELETE ON client_rules
    FOR EACH ROW EXECUTE FUNCTION note_client_rule();
