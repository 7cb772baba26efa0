"""The schema, as numbered SQL files. A file that was released is never changed again."""
