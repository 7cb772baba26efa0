"""What servers know each other by: their keys."""
