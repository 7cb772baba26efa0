"""The protocol: commands, events, frames, input types and views. Pure."""
