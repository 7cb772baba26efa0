"""Rules of links between a server and its instance nodes."""
