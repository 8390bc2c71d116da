"""Policies that come with Symbi: the canary, which is in every set, and the starter that `symbi init` writes.

The `.cedar` files in this folder are the policies; this module reads them once.
"""

from importlib import resources
from typing import Final

from symbi.policy.source import PolicySource

RESERVED_PREFIX: Final = "symbi."
"""Ids that begin so belong to built-in policies."""


def _read(name: str) -> PolicySource:
    return PolicySource(f"symbi/{name}", resources.files(__name__).joinpath(name).read_text("utf-8"))


CANARY: Final = _read("canary.cedar")
"""In every policy set; what start-up relies on being refused."""

BASE: Final = _read("base.cedar")
"""The starter: an agent may be created, get modest resources, compute in the interpreter, and log."""
