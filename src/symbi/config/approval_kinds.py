"""Kinds of value that only `[approvals]` has."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from symbi.config.kinds import Address, BadValue, Command, Kind, describe

LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

_KEY: Final = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Webhook(Address):
    """An address that facts are posted to: encrypted, unless it is this machine."""

    schemes: tuple[str, ...] = ("https", "http")

    @property
    def name(self) -> str:
        """For the reference."""
        return "URL: `https:`, or `http:` to this machine"

    def from_toml(self, value: object, base: Path) -> str:
        """A string; in the clear only to loopback."""
        text = Address.from_toml(self, value, base)
        parts = urlsplit(text)
        if parts.scheme == "http" and parts.hostname not in LOOPBACK:
            raise BadValue(f"must begin with `https:`, not {describe(text)}", "`http:` is for this machine alone")
        return text


@dataclass(frozen=True, slots=True)
class Program(Command):
    """A program and its arguments, also from a text, which is parted as a shell would."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "list of texts: name or path of a program, and arguments"

    def from_text(self, text: str, base: Path) -> tuple[str, ...]:
        """Words, quoted where they hold spaces."""
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise BadValue(f"cannot be parted into words: {str(error).lower()}") from error
        return self.from_toml(words, base)

    def show(self, value: tuple[str, ...]) -> str:
        """As one line that can be given back."""
        return shlex.join(value)


@dataclass(frozen=True, slots=True)
class HexKey(Kind[str]):
    """A public key of 32 bytes, in hexadecimal."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "64 hexadecimal digits"

    def from_toml(self, value: object, base: Path) -> str:
        """A string."""
        del base
        if not isinstance(value, str) or not _KEY.fullmatch(value):
            raise BadValue(f"must be a public key of 64 hexadecimal digits, not {describe(value)}")
        return value.lower()
