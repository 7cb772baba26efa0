"""Tools that read logs and recordings."""
