"""Doors for others: the control socket of a running owner."""
