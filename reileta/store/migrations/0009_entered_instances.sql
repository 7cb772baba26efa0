-- compatible_from: 9
-- An instance that nobody has entered yet lives longer: its maker may still be loading its world.

ALTER TABLE instances ADD COLUMN entered boolean NOT NULL DEFAULT true;
ALTER TABLE instances ALTER COLUMN entered SET DEFAULT false;
