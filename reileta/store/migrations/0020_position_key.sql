-- compatible_from: 11
-- The key of the values in which the players of an instance publish their positions.

ALTER TABLE instances ADD COLUMN position_key text;
