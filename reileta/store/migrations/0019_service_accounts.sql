-- compatible_from: 11
-- Accounts of services: a service acts as a user without a password, once it has a token.

ALTER TABLE users ADD COLUMN service text
    CONSTRAINT users_service REFERENCES services (id) ON DELETE CASCADE;
CREATE UNIQUE INDEX users_by_service ON users (service) WHERE service IS NOT NULL;
