"""Canonical JSON, keys, signatures, sealing, hash chain."""
