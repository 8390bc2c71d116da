"""What agents remember: a part of the store."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from symbi.adapters.sqlite.file import SQL, damaged
from symbi.adapters.sqlite.rows import Rows
from symbi.context.kinds import Form, MemoryKind
from symbi.context.port import EVERYBODY, Checkpoint, DuePlace, Meaning, Row, Space, Wanted
from symbi.errors import InternalError
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.types import AgentId

_AFTER_KEYS: Final = b',"text":""}}'  # what a sealed value ends with whose text is left out
COUNTED: Final = 512  # items that have a word, of those that are counted to find the rarest of several
KINDS: Final = {kind.value: kind for kind in MemoryKind}
FORMS: Final = {form.value: form for form in Form}
MEANINGS: Final = {meaning.value: meaning for meaning in Meaning}  # to look one up is a third of to make one
_ENDED, _OLD = " ended", " old"  # among whose items is looked that are due; no agent is called so
_FIRST: Final = (-(2**63), 0)
_COLUMNS: Final = (
    "m.id, m.space, m.kind, m.form, m.shared, m.level, m.at_ms, m.expires_ms, m.importance, m.half_life, m.tokens, m.times, "
    "m.digest, m.meaning, m.body, m.words, m.number"
)


class MemoryTable(Rows):
    """`symbi.context.port.MemoryStore`, for the store that has the connection."""

    # --- ContextStore -------------------------------------------------------------------------

    def put_item(self, row: Row, tags: Sequence[str]) -> None:
        """Insert an item, or replace it."""
        self._fence(self._epoch)
        self._take_out(row.id, live_only=True)
        at_ms = max(row.at_ms, int(self._one(SQL["memory_latest"], (row.space,))[0]))  # numbers follow times
        values = (
            row.id, row.space, row.kind.value, row.form.value, int(row.shared), row.level, at_ms, row.expires_ms,
            row.importance, row.half_life_days, row.tokens, row.times, row.digest, row.meaning.value, row.body, row.words,
        )  # fmt: skip
        self._write(SQL["put_memory"], values)
        self._write(SQL["memory_forgotten"], (row.id,))
        number = int(self._one("SELECT last_insert_rowid()")[0])
        self._write(SQL["memory_level_more"], (row.space, row.level))
        if row.words is not None:
            words = json.dumps(list(json.loads(row.words)))
            self._write(SQL["memory_words_in"], (row.space, number, words))
            self._write(SQL["memory_tags_in"], (row.space, number, json.dumps(list(tags))))

    def same_item(self, space: AgentId, kind: MemoryKind, digest: bytes) -> Row | None:
        """The item that says the same."""
        row = self._one(SQL["memory_same"], (space, kind.value, digest))
        return None if row is None else to_row(row)

    def find_items(self, wanted: Wanted) -> Sequence[Row]:
        """Items that fit, newest first."""
        if not wanted.levels:
            return []
        sql, values = self._question(wanted)
        return [to_row(row) for row in self._all(sql, (*values, wanted.limit))]

    def items_of(self, space: AgentId, ids: Sequence[str]) -> Sequence[Row]:
        """Items by their ids."""
        return [to_row(row) for row in self._all(SQL["memories_of"], (space, json.dumps(list(ids))))]

    def space_of(self, space: AgentId) -> Space:
        """What there is of an agent."""
        return Space({str(level): int(items) for level, items in self._all(SQL["memory_levels"], (space,))})

    # --- ContextKeeping -----------------------------------------------------------------------

    def remove_items(self, ids: Sequence[str]) -> int:
        """Remove items wherever they are; secure_delete overwrites what they said."""
        self._fence(self._epoch)
        count = 0
        for one in ids:
            self._take_out(one)
            removed = self._write(SQL["drop_memories"], (one,))
            if removed:
                self._write(SQL["memory_gone"], (one,))
            count += removed
        return count

    def remove_due(self, ids: Sequence[str], now_ms: int, oldest_ms: int) -> int:
        """Remove items where they have expired or are too old."""
        self._fence(self._epoch)
        count = 0
        for one in ids:
            for number, copy in self._all(SQL["memory_rows_due"], (one, now_ms, oldest_ms)):
                count += 1
                if copy:
                    self._write(SQL["drop_memory_row"], (number,))
                else:
                    self._take_out(one, live_only=True)
                    self._write(SQL["memory_gone"], (one,))
        return count

    def due_items(
        self, now_ms: int, oldest_ms: int, after: DuePlace, limit: int, of: AgentId = EVERYBODY
    ) -> Sequence[tuple[str, DuePlace]]:
        """Rows that have expired, or are too old; each is looked at once by who goes on behind the last of them."""
        found: list[tuple[str, DuePlace]] = []
        among = after.among or (of or _ENDED)
        ms, number = (after.ms, after.number) if after.among else _FIRST
        while among and len(found) < limit:
            values = (now_ms if among == _ENDED else oldest_ms, ms, number, limit - len(found))
            if of:
                rows = self._all(SQL["memories_old_in"], (*values, among))
            else:
                rows = self._all(SQL["memories_ended" if among == _ENDED else "memories_old"], values)
            found += [(str(id_), DuePlace(among, at, row)) for id_, at, row in rows]
            if len(found) < limit:
                among, (ms, number) = self._next_due(among, oldest_ms, of), _FIRST
        return found

    def _next_due(self, among: str, oldest_ms: int, of: AgentId) -> str:
        """Where to look behind a place: at instances of an agent in their order, or at everybody's old items after ended ones."""
        if not of:
            return _OLD if among == _ENDED else ""
        behind = f"{of}/" if among == of else among
        (found,) = self._one(SQL["memory_space_old"], (behind, f"{of}0", oldest_ms))
        return found or ""

    def only_in_copy(self, checkpoint: str) -> Sequence[str]:
        """What would be nowhere without it."""
        return [str(row[0]) for row in self._all(SQL["memories_only_in_copy"], (checkpoint,))]

    def held_items(self, ids: Sequence[str]) -> Sequence[str]:
        """Those that are about somebody under a hold; by what stands before the seal alone, however large they are."""
        held = frozenset(str(row[0]) for row in self._all(SQL["held_keys"])) if ids else frozenset()
        if not held:
            return []
        rows = self._all(SQL["memory_keys"], (json.dumps(list(ids)),))
        kept = {one for one, head in rows if not held.isdisjoint(read_sealed(head + _AFTER_KEYS).keys)}
        return [one for one in ids if one in kept]

    # --- SurplusStore -------------------------------------------------------------------------

    def surplus(self, space: AgentId, kind: MemoryKind, most: int, limit: int) -> Sequence[str]:
        """Items beyond a bound."""
        return [str(row[0]) for row in self._all(SQL["memories_surplus"], (space, kind.value, limit, most))]

    def surplus_copies(self, space: AgentId, most: int, limit: int) -> Sequence[str]:
        """Copies beyond a bound."""
        return [str(row[0]) for row in self._all(SQL["memory_copies_surplus"], (space, limit, most))]

    def note_surplus(self, space: AgentId, kind: str) -> None:
        """There is one, and it stays."""
        self._fence(self._epoch)
        self._write(SQL["note_memory_surplus"], (space, kind))

    def noted_surplus(self) -> Sequence[tuple[AgentId, str]]:
        """Where there is one."""
        return [(AgentId(space), str(kind)) for space, kind in self._all(SQL["memory_surplus_noted"])]

    def surplus_over(self, space: AgentId, kind: str) -> None:
        """There is none."""
        self._fence(self._epoch)
        self._write(SQL["memory_surplus_over"], (space, kind))

    # --- TermsStore ---------------------------------------------------------------------------

    def put_retention(self, agent: AgentId, days: float | None) -> None:
        """Keep what a file says."""
        self._fence(self._epoch)
        if days is None:
            self._write(SQL["drop_memory_terms"], (agent,))
        else:
            self._write(SQL["put_memory_terms"], (agent, days))

    def retentions(self) -> Mapping[AgentId, float]:
        """What files said last."""
        return {AgentId(agent): float(days) for agent, days in self._all(SQL["memory_terms"])}

    # --- Spaces -------------------------------------------------------------------------------

    def space_size(self, space: AgentId) -> tuple[int, int]:
        """How much an agent has."""
        items, size = self._one(SQL["memory_size"], (space,))
        return int(items), int(size)

    def space_has(self, space: AgentId, one: str) -> bool:
        """Whether an item is an agent's."""
        return any(row[2] == space for row in self._all(SQL["memory_rows"], (one,)))

    def copied_items(self, checkpoint: str, after: int, limit: int) -> Sequence[Row]:
        """Items that a copy has, and the memory has not."""
        return [to_row(row) for row in self._all(SQL["memories_in_copy_alone"], (checkpoint, after, limit))]

    def spaces(self) -> Sequence[AgentId]:
        """All agents that have something."""
        return [AgentId(row[0]) for row in self._all(SQL["memory_spaces"])]

    # --- MeaningStore -------------------------------------------------------------------------

    def meaning_due(self, after: int, limit: int) -> Sequence[Row]:
        """Items whose vector is to be made."""
        return [to_row(row) for row in self._all(SQL["memories_due"], (after, limit))]

    def meaning_there(self, ids: Sequence[str]) -> None:
        """Their vectors are there."""
        self._fence(self._epoch)
        for one in ids:
            self._write(SQL["memory_meant"], (one,))
            self._write(SQL["memory_gone_meanwhile"], (one,))

    def vectors_gone(self, limit: int) -> Sequence[str]:
        """Items that are no more."""
        return [str(row[0]) for row in self._all(SQL["memories_gone"], (limit,))]

    def forget_gone(self, ids: Sequence[str]) -> None:
        """Nor are their vectors."""
        self._fence(self._epoch)
        for one in ids:
            self._write(SQL["memory_forgotten"], (one,))

    # --- LostMeanings -------------------------------------------------------------------------

    def meanings_after(self, after: int, limit: int) -> Sequence[tuple[int, str, Meaning]]:
        """Items that have a vector or are to get one."""
        rows = self._all(SQL["memories_with_meaning"], (after, limit))
        return [(int(number), str(one), Meaning(meaning)) for number, one, meaning in rows]

    def meaning_lost(self, ids: Sequence[str], instead: Meaning) -> None:
        """Their vectors are not there."""
        self._fence(self._epoch)
        for one in ids:
            self._write(SQL["memory_meaning"], (one, int(instead)))

    # --- CheckpointStore ----------------------------------------------------------------------

    def put_checkpoint_of(self, checkpoint: Checkpoint) -> int:
        """Copy all that an agent has."""
        self._fence(self._epoch)
        self._write(SQL["put_memory_copy"], (checkpoint.id, checkpoint.space, checkpoint.at_ms))
        return self._write(SQL["copy_memories"], (checkpoint.id, checkpoint.space))

    def checkpoints_of(self, space: AgentId) -> Sequence[Checkpoint]:
        """The copies of an agent's memory, newest first."""
        rows = self._all(SQL["memory_copies"], (space,))
        return [Checkpoint(one, AgentId(name), at_ms, items) for one, name, at_ms, items in rows]

    def restore_copy(self, space: AgentId, checkpoint: str) -> int:
        """Put a copy in the place of what an agent has; the numbers are new, so that they follow the times again."""
        kept = [to_row(row) for row in self._all(SQL["memory_copy"], (checkpoint,))]
        staying = {row.id for row in kept}
        for (one,) in self._all(SQL["memory_ids"], (space,)):
            self._take_out(one, live_only=True)
            if one not in staying:
                self._write(SQL["memory_gone"], (one,))
        for row in kept:
            meaning = Meaning.NONE if row.meaning is Meaning.NONE else Meaning.DUE
            self.put_item(replace(row, meaning=meaning), [] if row.words is None else list(_tags_in(row.body)))
        return len(kept)

    def not_in_copy(self, space: AgentId, checkpoint: str) -> Sequence[str]:
        """What would go with it."""
        return [str(row[0]) for row in self._all(SQL["memories_beside_copy"], (space, checkpoint))]

    def drop_checkpoint(self, space: AgentId, checkpoint: str) -> bool:
        """Remove one copy."""
        self._fence(self._epoch)
        there = self._write(SQL["drop_memory_copy"], (checkpoint, space)) > 0
        if there:
            self._write(SQL["drop_copied_memories"], (checkpoint,))
        return there

    # --- how it is asked ----------------------------------------------------------------------

    def _take_out(self, one: str, *, live_only: bool = False) -> None:
        """Take an item out of words, tags and counts; of the rows, the live one alone or none."""
        for number, copy, space, level, words, body in self._all(SQL["memory_rows"], (one,)):
            if copy:
                continue
            if words is not None:
                self._write(SQL["memory_words_out"], (space, number, words))
                self._write(SQL["memory_tags_out"], (space, number, json.dumps(_tags_in(body))))
            self._write(SQL["memory_level_less"], (space, level))
            self._write(SQL["memory_levels_empty"], (space,))
            if live_only:
                self._write(SQL["drop_memory_row"], (number,))

    def _question(self, wanted: Wanted) -> tuple[str, list[object]]:
        """The statement that finds items, without its limit, and its values."""
        tests, values = _tests(wanted)
        words = self._rarest_first(wanted)
        # Else the planner may go by kind through all that is not sealed.
        chosen = "memories m INDEXED BY memories_sealed" if wanted.sealed else "memories m"
        source, order = chosen, "m.at_ms DESC, m.number DESC"
        first: list[object] = []
        if words or wanted.tags:
            table, column, name = (
                ("memory_words", "word", words.pop(0)) if words else ("memory_tags", "tag", wanted.tags[0])
            )
            source, order = f"{table} d CROSS JOIN memories m ON m.number = d.number", "d.number DESC"
            tests.insert(0, f"d.space = ? AND d.{column} = ?")
            first = [wanted.space, name]
        for word in words:
            tests.append(
                "EXISTS (SELECT 1 FROM memory_words w WHERE w.space = ? AND w.word = ? AND w.number = m.number)"
            )
            values += (wanted.space, word)
        for tag in wanted.tags:
            tests.append("EXISTS (SELECT 1 FROM memory_tags t WHERE t.space = ? AND t.tag = ? AND t.number = m.number)")
            values += (wanted.space, tag)
        where = " AND ".join(tests)
        sql = f"SELECT {_COLUMNS} FROM {source} WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608 - of names of our own schema
        return sql, [*first, *values]

    def _rarest_first(self, wanted: Wanted) -> list[str]:
        """The words that all items are to have, so that as few as may be are looked at."""
        if len(wanted.words) < 2:  # noqa: PLR2004 - one is the rarest
            return list(wanted.words)
        counts = {
            word: int(self._one(SQL["memory_word_count"], (wanted.space, word, COUNTED))[0]) for word in wanted.words
        }
        return sorted(wanted.words, key=counts.__getitem__)


def _tests(wanted: Wanted) -> tuple[list[str], list[object]]:
    """What is asked of the row itself."""
    tests = ["m.copy = ''", "m.space = ?", "(m.expires_ms IS NULL OR m.expires_ms > ?)", "m.at_ms >= ?"]
    since = wanted.oldest_ms if wanted.since_ms is None else max(wanted.oldest_ms, wanted.since_ms)
    values: list[object] = [wanted.space, wanted.now_ms, since]
    for column, among in (
        ("level", sorted(wanted.levels)), ("kind", [one.value for one in wanted.kinds]),
        ("form", [one.value for one in wanted.forms]),
    ):  # fmt: skip
        if among:
            tests.append(f"m.{column} IN ({', '.join('?' * len(among))})")
            values += among
    if wanted.until_ms is not None:
        tests.append("m.at_ms < ?")
        values.append(wanted.until_ms)
    if wanted.before is not None:
        tests.append("m.number < ?")
        values.append(wanted.before)
    if wanted.min_importance:
        tests.append("m.importance >= ?")
        values.append(wanted.min_importance)
    if wanted.shared_only:
        tests.append("m.shared = 1")
    if wanted.sealed is not None:
        tests.append(f"m.words IS {'' if wanted.sealed else 'NOT '}NULL")
    return tests, values


def _tags_in(body: bytes) -> Iterable[str]:
    """The tags of an item that is not sealed."""
    if is_sealed(body):
        msg = "an item with words outside of it is sealed"
        raise InternalError(msg, code="internal.context")
    return [str(tag) for tag in json.loads(body)["tags"]]


def to_row(row: Any) -> Row:
    """A row as an item.

    Raises:
        StoreUnavailable: It is none.
    """
    one, space, kind, form, shared, level, at_ms, expires_ms, importance, half_life = row[:10]
    tokens, times, digest, meaning, body, words, number = row[10:]
    try:
        return Row(
            one, AgentId(space), KINDS[kind], FORMS[form], bool(shared), level, at_ms, expires_ms, importance,
            half_life, tokens, times, digest, MEANINGS[meaning], body, words, number,
        )  # fmt: skip
    except (ValueError, KeyError) as unknown:
        raise damaged(unknown) from unknown
