"""The signed, chained trail of what happened."""
