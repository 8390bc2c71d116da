"""Kinds of values by which the gateway knows its own names and the pages that may ask it."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from symbi.config.kinds import BadValue, Kind, describe

_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HostName(Kind[str]):
    """A name or an address of a machine, without a port."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "name or address"

    def from_toml(self, value: object, base: Path) -> str:
        """A string."""
        del base
        if not isinstance(value, str) or not _is_host(value):
            raise BadValue(f"must be a name or an address, not {describe(value)}", "write it without a port")
        return value


@dataclass(frozen=True, slots=True)
class PageOrigin(Kind[str]):
    """Where a page comes from: scheme, name and port, as browsers write it."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "origin: `https://NAME` or `http://NAME`, with a port or without"

    def from_toml(self, value: object, base: Path) -> str:
        """A string."""
        del base
        if isinstance(value, str) and value == f"{value.partition('://')[0]}://{_authority(value)}":
            return value
        raise BadValue(f"must be an origin, not {describe(value)}", 'write "https://chat.example.org"')


def _is_host(text: str) -> bool:
    if _NAME.fullmatch(text):
        return True
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _authority(text: str) -> str | None:
    """Name and port of an origin; None where it is none."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in {"http", "https"} and parts.hostname and parts.username is None and parts.port != 0
    except ValueError:
        return None
    return parts.netloc if fits and _is_host(parts.hostname or "") else None
