"""The JSON objects that clients receive."""
