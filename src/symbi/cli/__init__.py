"""The `symbi` command."""
