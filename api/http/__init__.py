"""HTTP endpoints of both APIs, and the code that they share."""
