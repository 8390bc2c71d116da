"""Removing what is no longer needed of runs that are over: a part of the store."""

import json
from collections.abc import Sequence
from dataclasses import replace

from symbi.adapters.sqlite.file import SQL
from symbi.adapters.sqlite.rows import Rows
from symbi.clock import parse_rfc3339
from symbi.guard.outcome import NOT_STARTED_JSON
from symbi.runtime.compaction import Progress


class CompactionTable(Rows):
    """JournalStore, for the store that has the connection."""

    def compact(self, progress: Progress, before: str, effects: int, runs: int) -> Progress:
        """One step: runs first, then what the runtime did by itself."""
        self._fence(self._epoch)
        held = [str(row[0]) for row in self._all(SQL["held_keys"])]
        if progress.after is not None:
            return self._compact_runs(replace(progress, runs=0, effects=0, requests=0), before, (effects, runs), held)
        return self._compact_own(replace(progress, runs=0, effects=0, requests=0), before, effects, held)

    def _compact_runs(self, progress: Progress, before: str, most: tuple[int, int], held: Sequence[str]) -> Progress:
        left, looked = most
        rows = [
            row[0] for row in self._all(SQL["compactable_runs"], (progress.after, before, NOT_STARTED_JSON, looked))
        ]
        for run_id in rows:
            if held and self._names(SQL["values_of_run"], (run_id,), held):
                progress = replace(progress, after=run_id)
                continue
            found = [row[0] for row in self._all(SQL["effects_to_remove"], (run_id, left))]
            progress = self._removed(progress, found)
            left -= len(found)
            if left <= 0:
                return progress  # the run is looked at again: it may have more
            for name in ("drop_run_grant", "drop_run_labels", "drop_run_usage", "drop_run_answer", "empty_run"):
                self._write(SQL[name], (run_id,))
            progress = replace(progress, after=run_id, runs=progress.runs + 1)
        return progress if len(rows) == looked else replace(progress, after=None)

    def _compact_own(self, progress: Progress, before: str, most: int, held: Sequence[str]) -> Progress:
        assert progress.own_after is not None
        milliseconds = parse_rfc3339(before) // 1_000_000
        digits = f"{milliseconds:012x}"
        rows = [
            row[0] for row in self._all(SQL["own_effects"], (progress.own_after, f"{digits[:8]}-{digits[8:]}", most))
        ]
        free = [one for one in rows if not (held and self._names(SQL["values_of_effect"], (one,), held))]
        progress = self._removed(progress, free)
        return replace(progress, own_after=rows[-1] if len(rows) == most else None)

    def _removed(self, progress: Progress, effects: Sequence[str]) -> Progress:
        ids = (json.dumps(effects),)
        requests = self._write(SQL["drop_requests"], ids)
        gone = self._write(SQL["drop_effects"], ids)
        return replace(progress, effects=progress.effects + gone, requests=progress.requests + requests)

    def _names(self, sql: str, values: tuple[object, ...], keys: Sequence[str]) -> bool:
        """Whether any of some values was sealed by one of the keys, whose ids stand in them."""
        for row in self._all(sql, values):
            for value in row:
                data = value.encode() if isinstance(value, str) else value or b""
                if any(key.encode() in data for key in keys):
                    return True
        return False
