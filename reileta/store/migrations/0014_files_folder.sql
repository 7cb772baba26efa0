-- compatible_from: 11
-- The id of the folder of uploaded files that all nodes of a cluster share; the folder has it, too.
ALTER TABLE server ADD COLUMN files_id text;
