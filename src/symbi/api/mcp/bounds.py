"""What one session may ask for: calls at a time, calls in a second, bytes of a call. More is refused, never queued."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from symbi.clock import Clock
from symbi.errors import InputError, Overloaded
from symbi.types import JsonValue

BURST_S: Final = 2.0  # so many seconds' worth of requests may come at once
RETRY_AFTER_S: Final = 0.5  # when too many are under way
LEAST_WAIT_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one session.

    Attributes:
        calls: Requests at a time.
        rate: Requests in a second.
        request_bytes: Of the arguments of one, as JSON.
    """

    calls: int = 16
    rate: float = 50.0
    request_bytes: int = 1_048_576


class Turnstile:
    """Lets the requests of one client pass.

    Args:
        bounds: How many.
        clock: For the rate.
    """

    def __init__(self, bounds: Bounds, clock: Clock) -> None:
        self._bounds = bounds
        self._clock = clock
        self._most = max(1.0, bounds.rate * BURST_S)
        self._level = self._most
        self._at_s = clock.monotonic_s()
        self.under_way = 0

    @contextmanager
    def passing(self, arguments: Mapping[str, JsonValue] | None = None) -> Iterator[None]:
        """One request.

        Raises:
            Overloaded: Too many are under way, or came in the last second.
            InputError: Its arguments are too large.
        """
        self._take()  # first, for to look at what is large takes time that is everybody's
        self._check_size(arguments)
        if self.under_way >= self._bounds.calls:
            msg = f"{self.under_way} requests of this session are under way"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code="mcp.calls")
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    def _take(self) -> None:
        now_s = self._clock.monotonic_s()
        self._level = min(self._most, self._level + max(0.0, now_s - self._at_s) * self._bounds.rate)
        self._at_s = now_s
        if self._level < 1:
            wait_s = max(LEAST_WAIT_S, (1 - self._level) / self._bounds.rate)
            raise Overloaded("too many requests in a short time", retry_after_s=wait_s, code="mcp.rate")
        self._level -= 1

    def _check_size(self, arguments: Mapping[str, JsonValue] | None) -> None:
        if not arguments:
            return
        try:
            size = len(json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            msg = "the arguments hold what is no JSON"
            raise InputError(msg, code="mcp.arguments") from None
        if size > self._bounds.request_bytes:
            msg = f"arguments of {size} bytes; {self._bounds.request_bytes} are allowed"
            raise InputError(msg, code="mcp.size")
