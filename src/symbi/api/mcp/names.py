"""How tools and prompts of servers are called outside: names that do not change when another server is added.

`server__tool`, of letters, digits, `_` and `-`, 64 characters at most, which all common clients take. What cannot be
spelled so ends with eight digits of a hash of its whole name. Two that would be called the same are not served.
"""

import hashlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

OWN: Final = "symbi"
"""The prefix of the runtime's own tools; a server cannot be called so."""
PARTED: Final = "__"
MAX_NAME_CHARS: Final = 64
_HASH_CHARS: Final = 8
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_OTHER: Final = re.compile(r"[^A-Za-z0-9_-]")


def outside_name(server: str, name: str) -> str:
    """The name outside of what a server calls `name`."""
    spelled = f"{server}{PARTED}{name}"
    clear = PARTED not in server and not server.endswith("_") and _PLAIN.fullmatch(name)
    if clear and len(spelled) <= MAX_NAME_CHARS:
        return spelled
    digits = hashlib.sha256(f"{server}.{name}".encode()).hexdigest()[:_HASH_CHARS]
    return f"{_head(server, name)}_{digits}"


def may_be_of(outside: str, server: str) -> bool:
    """Whether a name outside may be of a server: of what it begins with, for what the server has may not be known."""
    return outside.startswith(_head(server, ""))


def _head(server: str, name: str) -> str:
    """What the name outside of something begins with that cannot be spelled so."""
    head = _OTHER.sub("_", f"{server.replace(PARTED, '-').rstrip('_')}{PARTED}{name}")
    return head[: MAX_NAME_CHARS - _HASH_CHARS - 1]


def name_all(things: Iterable[tuple[str, str]], *, prefixed: bool, taken: Iterable[str] = ()) -> dict[str, str]:
    """Names outside, each with the whole name `server.thing`; those that two things would have are left out.

    Args:
        things: Server and name of each.
        prefixed: With the server's name; else as their servers call them.
        taken: Names that are the runtime's own.
    """
    found: dict[str, str] = {}
    twice = set(taken)
    things = list(things)
    for (server, name), outside in zip(things, outside_names(things, prefixed=prefixed), strict=True):
        if outside in found:
            twice.add(outside)
        found[outside] = f"{server}.{name}"
    return {outside: whole for outside, whole in sorted(found.items()) if outside not in twice}


def outside_names(things: Iterable[tuple[str, str]], *, prefixed: bool) -> list[str]:
    """The name outside that each of several things would have, whether another one has it or not."""
    return [outside_name(server, name) if prefixed else name for server, name in things]


def left_out(things: Iterable[tuple[str, str]], named: Mapping[str, str]) -> list[str]:
    """The whole names of the things that have none outside, sorted."""
    served = set(named.values())
    return sorted({f"{server}.{name}" for server, name in things} - served)


def settled(
    seen: Mapping[str, str], named: Mapping[str, str], there: Iterable[str], is_there: Callable[[str], bool]
) -> tuple[dict[str, str], dict[str, str]]:
    """Names outside that count, and all that have been seen: one whose server is away stays that server's.

    Args:
        seen: What names stood for before, as whole names.
        named: What they would stand for, of all that there is.
        there: The names of all that there is, of two things or not.
        is_there: Whether a server is.
    """
    there_now = set(there)  # one that two things have by now stands for neither
    kept = {
        name: whole
        for name, whole in seen.items()
        if name not in there_now or (named.get(name) != whole and not is_there(whole.partition(".")[0]))
    }
    found = {name: whole for name, whole in named.items() if name not in kept}
    return found, {**kept, **found}


def without_oldest(
    seen: Mapping[str, str], named: Mapping[str, str], most: int, away: Collection[str]
) -> dict[str, str]:
    """Names that have been seen, so many at most: without the oldest that stand for nothing now.

    Those of a server that is away are forgotten last, so that no other one can have them forgotten.

    Args:
        seen: What names stand for, or stood for, as whole names; the oldest first.
        named: Those that count, all of which are kept.
        most: How many.
        away: The servers that are.
    """
    if len(seen) <= most:
        return dict(seen)
    gone = [name for name in seen if name not in named]
    gone.sort(key=lambda name: seen[name].partition(".")[0] in away)
    forgotten = set(gone[: len(seen) - most])
    return {name: whole for name, whole in seen.items() if name not in forgotten}
