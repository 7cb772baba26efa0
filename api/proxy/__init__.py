"""The gateway's HTTP proxy to the registries behind it."""
