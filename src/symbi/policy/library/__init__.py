"""Policies that come with Symbi: the canary, which is in every set, and the library that `symbi init` writes.

The `.cedar` files in this folder are the policies; this module reads them once. The library is of the four types of
policy, with budgets apart. Beside each of its files stands a file of cases that prove both verdicts of each of its policies.
"""

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final

from symbi.policy.source import PolicySource

RESERVED_PREFIX: Final = "symbi."
"""Ids that begin so belong to built-in policies."""


def _text(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")


def _read(name: str) -> PolicySource:
    return PolicySource(f"symbi/{name}", _text(name))


CANARY: Final = _read("canary.cedar")
"""In every policy set; what start-up relies on being refused."""

BASE: Final = _read("base.cedar")
"""The starter: an agent may be created, get modest resources, compute in the interpreter, and log."""

TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "access": "Access control: who may ask for what",
        "data-flow": "Data flow: what may go where",
        "resources": "Resource usage: how much an agent and a group may take",
        "audit": "Audit requirements: what must be recorded, and how",
    }
)
"""The four types of policy, each a file of the library."""

LIBRARY: Final[Mapping[str, PolicySource]] = MappingProxyType({name: _read(f"{name}.cedar") for name in TYPES})
"""The library by type. But for what is in `BASE` it permits nothing."""

BUDGETS: Final[Mapping[str, PolicySource]] = MappingProxyType(
    {name: _read(name) for name in ("budgets.cedar", "history.toml")}
)
"""Budgets by declared counters, and the counters, by file: further policies of the type `resources`, not in force until
their folder is named, because a set that reads `usage` or `history` visits the store once more for each decision."""


GATEWAY: Final[Mapping[str, PolicySource]] = MappingProxyType({"gateway.cedar": _read("gateway.cedar")})
"""What clients of the gateway may do, by file; not in force until its folder is named."""


def cases_of(name: str) -> str:
    """The cases (TOML) of a file of the library."""
    return _text(f"{name}.toml")
