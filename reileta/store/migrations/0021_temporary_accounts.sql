-- compatible_from: 11
-- Temporary accounts: without a password, and deleted some time after their last session.

ALTER TABLE users ADD COLUMN temporary boolean NOT NULL DEFAULT false;
CREATE INDEX users_temporary ON users (created_at) WHERE temporary;
