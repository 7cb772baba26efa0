"""What lives of the trust between servers: rules in force, and the place where a block acts."""
