"""What a question means, of an item that is open before us. Pure.

The store answers the same of items that are not sealed; tests hold both against each other.
"""

from collections.abc import Sequence

from symbi.context.port import Row, Wanted
from symbi.context.words import counted
from symbi.types import JsonValue


def is_there(row: Row, now_ms: int, oldest_ms: int) -> bool:
    """Whether an item has neither expired nor was kept too long ago."""
    return (row.expires_ms is None or row.expires_ms > now_ms) and row.at_ms >= oldest_ms


def fits(row: Row, wanted: Wanted) -> bool:
    """Whether all but words and tags of an item is as wanted."""
    return (
        row.space == wanted.space
        and row.level in wanted.levels
        and is_there(row, wanted.now_ms, max(wanted.oldest_ms, wanted.since_ms or wanted.oldest_ms))
        and (wanted.until_ms is None or row.at_ms < wanted.until_ms)
        and (wanted.before is None or row.number < wanted.before)
        and (not wanted.kinds or row.kind in wanted.kinds)
        and (not wanted.forms or row.form in wanted.forms)
        and row.importance >= wanted.min_importance
        and (row.shared or not wanted.shared_only)
    )


def says(content: JsonValue, tags: Sequence[str], wanted: Wanted) -> bool:
    """Whether the words and tags of an item are as wanted."""
    if not set(wanted.tags) <= set(tags):
        return False
    if not wanted.words:
        return True
    there = counted(content)
    return all(word in there for word in wanted.words)
