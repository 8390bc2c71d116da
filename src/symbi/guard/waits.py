"""How many effects of one asker may wait for people at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from symbi.errors import Overloaded

RETRY_AFTER_S: Final = 60.0  # people take that long at least


@dataclass(eq=False, slots=True)
class Waits:
    """The approvals that wait for one asker, each in the unit of work that asks for it, so that none is counted late.

    Attributes:
        most: At a time; of a further one nobody is asked.
    """

    most: int
    _held: set[str] = field(init=False, default_factory=set)

    def take(self, approval_id: str, waits: Callable[[str], bool]) -> None:
        """Count an approval that is about to be asked for.

        Args:
            approval_id: Its id.
            waits: Whether an approval waits still.

        Raises:
            Overloaded: There are too many.
        """
        if len(self._held) >= self.most:
            self._held.difference_update([one for one in tuple(self._held) if not waits(one)])
        if len(self._held) >= self.most:
            msg = f"{len(self._held)} requests wait for people"
            raise Overloaded(msg, retry_after_s=RETRY_AFTER_S, code="approval.crowded")
        self._held.add(approval_id)

    def found(self, approval_id: str) -> None:
        """Count an approval that was asked for before, such as before a restart."""
        self._held.add(approval_id)
