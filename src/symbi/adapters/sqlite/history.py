"""Tallies and usage in the store. A reading is a few look-ups by primary key: totals are kept, not summed."""

from collections.abc import Sequence

from symbi.adapters.sqlite.file import SQL
from symbi.adapters.sqlite.rows import Rows
from symbi.errors import InputError
from symbi.guard.tally import Reading, RunUsage, Tally
from symbi.policy.history import LARGEST
from symbi.types import EffectId, RunId

_BEGINNING = -(2**63)  # before every time


class TalliesInSqlite(Rows):
    """`symbi.guard.tally.TallyStore` for the store that mixes it in."""

    def read_tallies(
        self, tallies: Sequence[Tally], now_ns: int, *, without: EffectId | None = None, prune: bool = False
    ) -> Sequence[Reading]:
        """Readings, in the same order."""
        return [self._reading(tally, now_ns, without, prune=prune) for tally in tallies]

    def _reading(self, tally: Tally, now_ns: int, without: EffectId | None, *, prune: bool) -> Reading:
        key = (tally.counter, tally.scope)
        row = self._one(SQL["get_tally"], key)
        if row is None:
            return Reading(0)
        total, latest_ns = row
        time_ns, cut_ns, oldest_ns = max(now_ns, latest_ns), _BEGINNING, None
        if tally.window is not None:
            cut_ns = max(_BEGINNING, tally.window.cut_ns(time_ns))
            expired, count = self._one(SQL["tally_expired"], (*key, cut_ns))
            total -= expired
            if prune and count:
                self._write(SQL["prune_tally"], (*key, cut_ns))
                self._write(SQL["put_tally"], (*key, total, time_ns))
            oldest = self._one(SQL["tally_oldest"], (*key, cut_ns))
            oldest_ns = None if oldest is None else oldest[0]
        if without is not None:
            total -= self._one(SQL["tally_of_effect"], (without, *key, cut_ns))[0]
        return Reading(total, oldest_ns)

    def add_to_tallies(self, effect_id: EffectId, entries: Sequence[tuple[Tally, int]], now_ns: int) -> None:
        """Add amounts of an effect."""
        for tally, amount in entries:
            key = (tally.counter, tally.scope)
            total, latest_ns = self._one(SQL["get_tally"], key) or (0, now_ns)
            if amount + total > LARGEST:
                raise InputError(f"`{tally.counter}` would be beyond {LARGEST}", code="policy.history")
            time_ns = max(now_ns, latest_ns)
            self._write(SQL["put_tally"], (*key, total + amount, time_ns))
            windowed = int(tally.window is not None)
            self._write(SQL["put_tally_entry"], (*key, time_ns, effect_id, amount, windowed))

    def settle_tallies(self, effect_id: EffectId, *, happened: bool) -> None:
        """Make what an effect added final, or take it back."""
        if happened:
            self._write(SQL["drop_final_entries"], (effect_id,))
            return
        for counter, scope, amount in self._all(SQL["entries_of_effect"], (effect_id,)):
            self._write(SQL["take_from_tally"], (amount, counter, scope))
        self._write(SQL["drop_entries"], (effect_id,))

    def usage_of(self, run_id: RunId) -> RunUsage | None:
        """What a run has used."""
        row = self._one(SQL["get_usage"], (run_id,))
        return None if row is None else RunUsage(*row)

    def put_usage(self, run_id: RunId, usage: RunUsage) -> None:
        """Insert or replace what a run has used."""
        values = (run_id, usage.started_ns, usage.effects, usage.denied, usage.calls)
        self._write(SQL["put_usage"], values)
