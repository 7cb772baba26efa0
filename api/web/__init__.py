"""The pages at `/` and `/console`: sources in `clients/web`, built into `dist/`, served here."""
