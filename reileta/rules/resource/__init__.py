"""The rules of resources and their JSON."""
