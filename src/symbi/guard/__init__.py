"""The gate: every effect passes here, with its permit and its record in the ledger."""
