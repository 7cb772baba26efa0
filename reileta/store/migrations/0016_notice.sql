-- compatible_from: 11
-- What the server tells everyone who is connected, and those who connect before it ends.
ALTER TABLE server ADD COLUMN notice json;
