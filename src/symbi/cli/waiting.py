"""How long `symbi run` waits for people: `--wait`, or `--wait 30m`."""

import re
from math import inf
from typing import Final

from typer.core import TyperCommand

from symbi.errors import InputError

UNTIL_DECIDED: Final = "until-decided"
"""What `--wait` alone means: until people have answered, or their time is up."""

_TIME: Final = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)", re.ASCII)
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class WaitingCommand(TyperCommand):
    """A command whose `--wait` may stand without a value."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - as the library's own
        """Give `--wait` its value where it has none."""
        given = []
        for index, word in enumerate(args):
            following = args[index + 1] if index + 1 < len(args) else ""
            alone = word == "--wait" and not _TIME.fullmatch(following) and following != UNTIL_DECIDED
            given.append(f"--wait={UNTIL_DECIDED}" if alone else word)
        return super().parse_args(ctx, given)


def wait_s(text: str | None, option: str = "--wait") -> float | None:
    """Seconds to wait; 0 where nothing was said, None for as long as it takes.

    Raises:
        InputError: The text is no time.
    """
    if text is None:
        return 0.0
    alone = option == "--wait"
    if alone and text == UNTIL_DECIDED:
        return None
    match = _TIME.fullmatch(text)
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else inf
    if seconds == inf:
        msg = f"`{option} {text}` is no time"
        hint = "write a number and `ms`, `s`, `m`, `h` or `d`"
        raise InputError(msg, code="input.usage", hint=f"{hint}, or `--wait` alone" if alone else hint)
    return seconds
