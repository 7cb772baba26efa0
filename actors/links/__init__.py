"""Links to instance nodes, which host instances elsewhere."""
