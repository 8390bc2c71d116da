"""The terms of memories: what files say of them, and since when items stay.

What a file says of retention is kept in the store, so that it holds at the next opening too, before any file is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from symbi.context.kinds import DAY_MS, MemoryTerms
from symbi.context.port import EVERYBODY
from symbi.dsl.spec import MemorySpec
from symbi.types import AgentId

NOTHING_SAID: Final = MemorySpec()


class DeclaredTerms:
    """What is said of the memories of agents; an agent's instances have its terms.

    Args:
        configured: The terms of an agent's memory where its file says nothing.
        retention_days: Age at which any item is deleted.
    """

    def __init__(self, configured: Callable[[AgentId], MemoryTerms], retention_days: float) -> None:
        self._configured = configured
        self._retention_days = retention_days
        self._declared: dict[AgentId, MemorySpec] = {}
        self._unsaved: dict[AgentId, float | None] = {}

    def declare(self, agent: AgentId, spec: MemorySpec) -> bool:
        """Take what a file says; whether that is something else than before."""
        before = self._declared.get(agent, NOTHING_SAID)
        if before == spec:
            return False
        self._declared[agent] = spec
        if before.retention_days != spec.retention_days:
            self._unsaved[agent] = spec.retention_days
        return True

    def take_up(self, retentions: Mapping[AgentId, float]) -> None:
        """Take what was said of retention before this process was there; what was said since stays."""
        for agent, days in retentions.items():
            self._declared.setdefault(agent, MemorySpec(retention_days=days))

    @property
    def unsaved(self) -> Mapping[AgentId, float | None]:
        """Retentions that are to be kept; None where nothing is said any more."""
        return dict(self._unsaved)

    def saved(self, retentions: Mapping[AgentId, float | None]) -> None:
        """Note that these are kept; what was said meanwhile is not."""
        for agent, days in retentions.items():
            if self._unsaved.get(agent, days) == days:
                self._unsaved.pop(agent, None)

    def of(self, space: AgentId) -> MemoryTerms:
        """The terms of a memory."""
        agent = AgentId(space.partition("/")[0])
        terms, said = self._configured(agent), self._declared.get(agent, NOTHING_SAID)
        if said.retention_days is not None:
            terms = replace(terms, retention_days=said.retention_days)
        if said.vector_weight is not None and said.keyword_weight is not None:
            terms = replace(terms, vector_weight=said.vector_weight, keyword_weight=said.keyword_weight)
        return terms

    def oldest_ms(self, now_ms: int, space: AgentId = EVERYBODY) -> int:
        """What was kept before is not there any more, whatever was said when it was kept; in milliseconds."""
        of_all = now_ms - round(self._retention_days * DAY_MS)
        days = None if space == EVERYBODY else self.of(space).retention_days
        return of_all if days is None else max(of_all, now_ms - round(days * DAY_MS))

    def ages(self, now_ms: int) -> Sequence[tuple[AgentId, int]]:
        """Since when items stay: of all, under the empty name, and of agents whose files say less, with all instances."""
        of_all = self.oldest_ms(now_ms)
        less = [(agent, self.oldest_ms(now_ms, agent)) for agent in self._declared]
        return [(EVERYBODY, of_all), *(one for one in less if one[1] > of_all)]
