"""Pure rules of trust between servers."""
