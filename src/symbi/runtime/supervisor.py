"""What to do with an agent whose work ended in an error: retry, restart, suspend or end it; pure. The table is that of `symbi.agent.remedies`.

Retries and restarts are bounded and wait longer each time. When they are used up the decision is to terminate, with
`exhausted` set: the caller puts the task with the dead letters and the agent among the failed.
"""

from dataclasses import dataclass
from typing import Final

from symbi.agent.remedies import RESTARTS, RETRIES, Remedy, asked_wait_s, remedy_for, says_when
from symbi.errors import EffectInDoubt, RateLimited

MAX_WINDOW_S: Final = 86_400.0  # a rate whose window is longer is waited for in several parts


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be done.

    Attributes:
        remedy: The remedy.
        after_s: When to retry or restart, in seconds from now.
        exhausted: Every attempt was used up: a crash loop, and a dead letter.
    """

    remedy: Remedy
    after_s: float = 0.0
    exhausted: bool = False


_SEVERITY: Final = (Remedy.RETRY, Remedy.RESTART, Remedy.SUSPEND, Remedy.TERMINATE)


def judge(error: Exception, *, attempt: int, jitter: float) -> Verdict:
    """Decide what to do about an error.

    Args:
        error: What ended the work; of a group, the error with the severest remedy decides.
        attempt: How often in a row it has ended in an error now, from 1.
        jitter: A random number in [0, 1).

    Returns:
        The verdict; a wait is no shorter than what the error asks for, up to the longest there is; that of a rate, which says exactly when it frees, is
        as long as its window.
    """
    error = max(_members(error), key=lambda member: _SEVERITY.index(remedy_for(type(member))))
    if isinstance(error, EffectInDoubt) and says_when(error):
        wait_s = RETRIES.most_s * (0.5 + jitter / 2)
        return Verdict(Remedy.RETRY, min(max(wait_s, asked_wait_s(error)), MAX_WINDOW_S))
    remedy = remedy_for(type(error))
    if remedy not in {Remedy.RETRY, Remedy.RESTART}:
        return Verdict(remedy)
    backoff = RETRIES if remedy is Remedy.RETRY else RESTARTS
    delay_s = backoff.next_delay_s(attempt, jitter)
    if delay_s is None:
        return Verdict(Remedy.TERMINATE, exhausted=True)
    most_s = MAX_WINDOW_S if isinstance(error, RateLimited) else backoff.most_s
    return Verdict(remedy, min(max(delay_s, asked_wait_s(error)), most_s))


def _members(error: Exception) -> list[Exception]:
    """The errors of a group, however nested, or the one error."""
    if isinstance(error, ExceptionGroup):
        return [member for part in error.exceptions for member in _members(part)]
    return [error]
