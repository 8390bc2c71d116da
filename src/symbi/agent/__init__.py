"""How one agent works."""
