"""Large values, once each: a column that would hold one refers to it by the hash of its bytes.

What is sealed is hashed as it was sealed, so that no digest tells anything of it. A reference is one byte 0x02, which
begins neither JSON text nor a sealed value, and the SHA-256. How many columns refer to a payload is counted by triggers,
whichever statement writes them; one that nothing refers to any more is gone with the last reference, in one transaction.
"""

import hashlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from symbi.adapters.sqlite.file import REFERENCE, SQL
from symbi.adapters.sqlite.rows import Rows

MAX_INLINE_BYTES: Final = 4096  # of a value that stands in its own column; a page of the file

PAYLOAD_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "effects": ("result", "error"),
        "runs": ("inputs", "output", "error"),
        "mailbox": ("body",),
        "dead_letters": ("inputs", "error"),
    }
)
"""The columns that may hold a reference, by table."""


def triggers() -> Iterator[tuple[str, str]]:
    """Names and statements of the triggers that count references."""
    for table, columns in PAYLOAD_COLUMNS.items():
        taken = " ".join(_counted("NEW", column, +1) for column in columns)
        given = " ".join(_counted("OLD", column, -1) for column in columns)
        gone = " ".join(
            f"DELETE FROM payloads WHERE uses < 1 AND substr(OLD.{column}, 1, 1) = x'02' AND digest = substr(OLD.{column}, 2);"  # noqa: S608 - names of our own schema
            for column in columns
        )
        for event, body in (
            ("INSERT", taken),
            (f"UPDATE OF {', '.join(columns)}", f"{taken} {given} {gone}"),
            ("DELETE", f"{given} {gone}"),
        ):
            rows = {"INSERT": ("NEW",), "DELETE": ("OLD",)}.get(event, ("NEW", "OLD"))
            refers = " OR ".join(f"substr({row}.{column}, 1, 1) = x'02'" for row in rows for column in columns)
            name = f"payloads_{table}_{event.partition(' ')[0].lower()}"
            yield name, f"CREATE TRIGGER {name} AFTER {event} ON {table} WHEN {refers} BEGIN {body} END;"


def _counted(row: str, column: str, by: int) -> str:
    return (
        f"UPDATE payloads SET uses = uses + {by} "  # noqa: S608 - names of our own schema
        f"WHERE substr({row}.{column}, 1, 1) = x'02' AND digest = substr({row}.{column}, 2);"
    )


class PayloadTable(Rows):
    """Payloads, for the store that has the connection."""

    def _kept(self, value: bytes | None) -> bytes | None:
        """A value as its column holds it: itself, or the reference to what is kept of it now; to be written at once."""
        if value is None or len(value) <= MAX_INLINE_BYTES:
            return value
        digest = hashlib.sha256(value).digest()
        self._write(SQL["put_payload"], (digest, value))
        return REFERENCE + digest

    def _unkept(self, *values: bytes | None) -> None:
        """Let go what `_kept` has kept, where its row was not written."""
        for value in values:
            if value is not None and value.startswith(REFERENCE):
                self._write(SQL["drop_unused_payload"], (value[len(REFERENCE) :],))
