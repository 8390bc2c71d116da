"""How many agents run."""
