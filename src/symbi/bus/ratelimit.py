"""Token buckets: how much an agent, a pair and a topic may have in a second. Pure; the caller tells the time."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from symbi.errors import RateLimited

MAX_BUCKETS: Final = 200_000  # what was used least recently is forgotten: it is full again by then, or nearly
LEAST_WAIT_S: Final = 0.001


@dataclass(frozen=True, slots=True)
class RateTerms:
    """What may pass in a second, and at once after a pause; 0 sets no bound.

    Attributes:
        agent, pair, topic: Messages of one sender, of one sender to one recipient, to one topic.
        agent_bytes: Bytes of one sender.
        burst_s: So many seconds' worth may pass at once.
    """

    agent: float = 0.0
    pair: float = 0.0
    topic: float = 0.0
    agent_bytes: float = 0.0
    burst_s: float = 1.0


class TokenBucket:
    """Fills at a rate, up to a bound; full at first."""

    __slots__ = ("_at_s", "_level", "_most", "_rate")

    def __init__(self, rate: float, burst: float, now_s: float) -> None:
        self._rate = rate
        self._most = max(burst, 1.0)
        self._level = self._most
        self._at_s = now_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """Seconds until so much is in it; more than it can ever hold counts as all that it can."""
        if now_s > self._at_s:
            self._level = min(self._most, self._level + (now_s - self._at_s) * self._rate)
            self._at_s = now_s
        missing = min(amount, self._most) - self._level
        return missing / self._rate if missing > 0 else 0.0

    def take(self, amount: float) -> None:
        """Take it out. What is more than it can hold is owed: nothing passes until that is made up for."""
        self._level -= amount


class Limits:
    """The buckets of a bus.

    Args:
        terms: How fast they fill.
    """

    def __init__(self, terms: RateTerms) -> None:
        self._terms = terms
        self._buckets: OrderedDict[tuple[str, str, str], TokenBucket] = OrderedDict()

    def take(self, sender: str, target: str, count: int, size: int, now_s: float, *, topic: bool) -> None:
        """Let so many messages with so many bytes pass: all of them, or none.

        Raises:
            RateLimited: One of the buckets has not enough; it says when it will.
        """
        terms, target_rate = self._terms, self._terms.topic if topic else self._terms.pair
        wanted: list[tuple[str, TokenBucket, float]] = []
        if terms.agent:
            wanted.append(("messages of one agent", self._bucket(("agent", sender, ""), terms.agent, now_s), count))
        if target_rate:
            key = ("topic", "", target) if topic else ("pair", sender, target)
            what = "messages to one topic" if topic else "messages of one agent to another"
            wanted.append((what, self._bucket(key, target_rate, now_s), count))
        if terms.agent_bytes:
            wanted.append(("bytes of one agent", self._bucket(("bytes", sender, ""), terms.agent_bytes, now_s), size))
        for what, bucket, amount in wanted:
            wait_s = bucket.wait_s(amount, now_s)
            if wait_s > 0:
                msg = f"agent `{sender}` sends to `{target}` faster than the bound on {what} allows"
                raise RateLimited(msg, retry_after_s=max(wait_s, LEAST_WAIT_S))
        for _, bucket, amount in wanted:
            bucket.take(amount)

    def _bucket(self, key: tuple[str, str, str], rate: float, now_s: float) -> TokenBucket:
        found = self._buckets.get(key)
        if found is None:
            if len(self._buckets) >= MAX_BUCKETS:
                self._buckets.popitem(last=False)
            found = self._buckets[key] = TokenBucket(rate, rate * self._terms.burst_s, now_s)
        else:
            self._buckets.move_to_end(key)
        return found
