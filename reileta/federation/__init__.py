"""Input and output with other servers."""
