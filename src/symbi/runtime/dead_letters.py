"""What was given up: messages and runs that no retry and no restart brought to their end, kept until somebody decides.

```
 given up ──► open ──► replayed, as a new run with the same inputs, labels and grant
                └────► dropped, by somebody, for a reason; or because the queue is full
```

A letter is named by the run that was given up, so that the same run is put here once, however often that is tried. Its
payload is sealed under the keys that sealed what the run knew; a closed letter has none any more.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final, Protocol

from symbi.agent.journal import RunStore
from symbi.agent.sealing import opened_run
from symbi.agent.task import Task, kept_task
from symbi.audit.event import AuditEventType, Draft
from symbi.audit.log import AuditLog
from symbi.clock import Clock, rfc3339
from symbi.errors import (
    ConfigError,
    DecryptionFailed,
    InputError,
    InternalError,
    StoreUnavailable,
    SymbiError,
    VerificationError,
    did_you_mean,
)
from symbi.guard.confidential import confided, open_column
from symbi.guard.ledger import EffectStore
from symbi.guard.outcome import encode_error, encode_result, error_label
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.guard.vault import Keys, Vault, agent_subject, place
from symbi.policy.flow import MORE_SUBJECTS, join_subjects
from symbi.runtime.occurrences import NO_RUN
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue, KeyId, RunId

MAX_OPEN: Final = 1000  # open letters of one declared agent; the oldest makes room for a further one
MAX_CLOSED: Final = 1000  # closed letters of one declared agent that are remembered; the trail has all of them
MAX_WHY_CHARS: Final = 500  # of the reason for which a letter is dropped
FULL: Final = f"{MAX_OPEN} letters of this agent are open, and this was the oldest"


class LetterKind(StrEnum):
    """What was given up."""

    MESSAGE = "message"
    RUN = "run"
    OCCURRENCE = "occurrence"
    """A run that a schedule had begun."""


class LetterState(StrEnum):
    """What became of a letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message or run that was given up.

    Attributes:
        run_id: The run; a message is called as the run that it was to become.
        kind: What it was.
        agent_id: The agent, `declared` or `declared/instance`.
        file: Its agent file, as an absolute path.
        code: Of the error that it was given up for.
        attempts: How often it was tried.
        at: RFC 3339.
        state: What became of the letter.
        inputs: JSON object of the inputs; None in a closed letter, and where they were erased before.
        grant: JSON of what the task calls for, or None.
        labels: JSON of the labels of the inputs, or None.
        error: JSON of the error.
        became: The run that it was replayed as; empty elsewhere.
        closed_at: RFC 3339, once it was replayed or dropped.
        note: JSON: who closed it, and why.
    """

    run_id: RunId
    kind: LetterKind
    agent_id: AgentId
    file: str
    code: str
    attempts: int
    at: str
    state: LetterState = LetterState.OPEN
    inputs: bytes | None = None
    grant: bytes | None = None
    labels: bytes | None = None
    error: bytes | None = None
    became: RunId = NO_RUN
    closed_at: str | None = None
    note: bytes | None = None

    @property
    def declared(self) -> AgentId:
        """The agent as its file declares it."""
        return AgentId(self.agent_id.partition("/")[0])

    @property
    def sealed_by(self) -> tuple[KeyId, ...]:
        """The keys of all that is sealed in it, sorted."""
        return _keys_in(self.inputs, self.grant, self.labels, self.error)

    @property
    def task(self) -> Task:
        """What was said of it besides its inputs; of an opened letter.

        Raises:
            StoreUnavailable: It is not of the form in which it was kept.
        """
        return kept_task(self.grant, self.labels)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which letters.

    Attributes:
        agent: `declared` for it and all its instances, or `declared/instance`; None for everybody.
        state: What became of them; None for whatever.
        limit: How many at most.
        beyond: How many of the newest are passed over.
    """

    agent: AgentId | None = None
    state: LetterState | None = None
    limit: int = 100
    beyond: int = 0


class DeadLetterStore(Protocol):
    """Durable letters; the methods block, and those that write run inside the store's running transaction."""

    def put_letter(self, letter: DeadLetter) -> bool:
        """Insert a letter; False where its run has one already, which stays as it is.

        Raises:
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def close_letter(self, letter: DeadLetter) -> bool:
        """Write an open letter back as it is now, without its payload; False where it is not open any more.

        Of the closed letters of its agent, only the newest `MAX_CLOSED` stay.

        Raises:
            StoreUnavailable: The store cannot be written, or a newer owner has taken it over.
        """

    def get_letter(self, run_id: RunId) -> DeadLetter | None:
        """The letter of a run, or None.

        Raises:
            StoreUnavailable: The store cannot be read.
        """

    def letters(self, wanted: Wanted) -> Sequence[DeadLetter]:
        """Some letters, newest first.

        Raises:
            StoreUnavailable: The store cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Payload:
    """What was to be done, where no run of it is on record: a message that nobody began.

    Attributes:
        agent_id: Who was to do it.
        file: Its agent file, as an absolute path.
        inputs: Its inputs by name.
        task: What is said of them.
    """

    agent_id: AgentId
    file: str
    inputs: Mapping[str, JsonValue]
    task: Task


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What is to become a letter.

    Attributes:
        kind: What it was.
        run_id: The run, or the message.
        error: Why it was given up.
        attempts: How often it was tried.
        payload: What was to be done, where the run is not on record.
    """

    kind: LetterKind
    run_id: RunId
    error: SymbiError
    attempts: int
    payload: Payload | None = None


class DeadLetters:
    """The queue of what was given up.

    Args:
        store: Keeps letters.
        runs: The journal, in the same store.
        effects: The ledger, in the same store.
        log: Makes letters durable, each with its event.
        vault: Seals and opens.
        clock: For their times.

    Attributes:
        store: Keeps letters; its methods run on the store's thread.
    """

    def __init__(
        self, store: DeadLetterStore, runs: RunStore, effects: EffectStore, log: AuditLog, vault: Vault, clock: Clock
    ) -> None:
        self.store = store
        self._runs = runs
        self._effects = effects
        self._log = log
        self._vault = vault
        self._clock = clock

    async def put(self, given: GivenUp) -> DeadLetter:
        """Put something here; returns once that is durable. The same run is put once.

        Raises:
            InternalError: Nothing is on record of the run, and no payload was given.
            StoreUnavailable: It cannot be kept.
        """
        letter, _ = await self._log.transact(partial(self.put_now, given), wait=True)
        return letter

    def put_now(self, given: GivenUp) -> tuple[DeadLetter, tuple[Draft, ...]]:
        """A unit of work: the same, inside the store's transaction, together with whatever else ends the run.

        Raises:
            InternalError, StoreUnavailable: As `put`.
        """
        there = self.store.get_letter(given.run_id)
        if there is not None:
            return there, ()
        letter, keys, error = self._sealed(given)
        self.store.put_letter(letter)
        facts: dict[str, JsonValue] = {
            "letter_kind": letter.kind.value,
            "file": letter.file,
            "code": letter.code,
            "attempts": letter.attempts,
            "reason": str(error),
        }
        put = confided(Draft(AuditEventType.LETTER_PUT, letter.agent_id, facts, letter.run_id), keys)
        return letter, (put, *self._make_room(letter.declared))

    def _make_room(self, declared: AgentId) -> list[Draft]:
        """The oldest letters of an agent make room, so that one that fails all the time pushes nobody else's out."""
        oldest = self.store.letters(Wanted(declared, LetterState.OPEN, MAX_OPEN, beyond=MAX_OPEN))
        return [self.drop_now(letter, SYSTEM_AGENT, FULL)[1] for letter in oldest]

    # --- reading --------------------------------------------------------------------------------

    async def listed(self, wanted: Wanted) -> Sequence[DeadLetter]:
        """Some letters, newest first, as they are kept."""
        return await self._log.read(partial(self.store.letters, wanted))

    async def found(self, run_id: RunId) -> DeadLetter:
        """The open letter of a run, as it is kept.

        Raises:
            InputError: There is none, or it is closed.
        """
        return await self._log.read(partial(self._open, run_id))

    async def opened(self, run_id: RunId) -> DeadLetter:
        """The open letter of a run, with its payload as it was.

        Raises:
            InputError: There is none, or it is closed, or what it knew was erased.
            DecryptionFailed: Something of it was altered.
            ConfigError: There is no master key.
        """
        letter = await self._log.read(lambda: opened_letter(self._open(run_id), self._vault))
        if letter.inputs is None:
            raise erased(run_id)
        return letter

    def _open(self, run_id: RunId) -> DeadLetter:
        letter = self.store.get_letter(run_id)
        if letter is None:
            near = [one.run_id for one in self.store.letters(Wanted(state=LetterState.OPEN))]
            raise unknown(run_id, near)
        if letter.state is not LetterState.OPEN:
            raise not_open(letter)
        return letter

    # --- closing --------------------------------------------------------------------------------

    async def drop(self, run_id: RunId, by: str, why: str) -> DeadLetter:
        """Give a letter up for good; its payload is removed.

        Args:
            run_id: Of the letter.
            by: Who says so.
            why: One line.

        Raises:
            InputError: There is no open letter of this run, or the reason is no line.
            StoreUnavailable: It cannot be recorded.
        """
        check_reason(why)

        def work() -> tuple[DeadLetter, tuple[Draft]]:
            closed, draft = self.drop_now(self._open(run_id), by, why)
            return closed, (draft,)

        closed, _ = await self._log.transact(work)
        return closed

    def drop_now(self, letter: DeadLetter, by: str, why: str) -> tuple[DeadLetter, Draft]:
        """Inside the store's transaction: drop an open letter."""
        said: dict[str, JsonValue] = {"by": by, "reason": why}
        return self._closed(letter, AuditEventType.LETTER_DROPPED, LetterState.DROPPED, said)

    def replayed_now(self, letter: DeadLetter, became: RunId, by: str) -> tuple[DeadLetter, Draft]:
        """Inside the store's transaction, with what it is replayed as: a letter is replayed once.

        Raises:
            InputError: It is not open any more.
        """
        said: dict[str, JsonValue] = {"by": by, "became": became}
        stored = self.store.get_letter(letter.run_id)
        if stored is None or stored.state is not LetterState.OPEN:
            raise not_open(stored or letter)
        return self._closed(replace(stored, became=became), AuditEventType.LETTER_REPLAYED, LetterState.REPLAYED, said)

    def _closed(
        self, letter: DeadLetter, kind: AuditEventType, state: LetterState, said: dict[str, JsonValue]
    ) -> tuple[DeadLetter, Draft]:
        ids = self._living(letter.sealed_by)
        # Whose keys were all destroyed, nobody can say any more: what is said of it may be about any of them.
        crowd = (MORE_SUBJECTS,) if letter.sealed_by and not ids else ()
        keys = self._keys(letter.declared, crowd, ids)
        note = keys.seal(encode_result(said), place("dead_letters", "note", letter.run_id))
        closed = replace(
            letter, state=state, closed_at=rfc3339(self._clock.now_ns()), note=note,
            inputs=None, grant=None, labels=None, error=None,
        )  # fmt: skip
        if not self.store.close_letter(closed):
            raise not_open(letter)
        facts = {"letter_kind": letter.kind.value, "code": letter.code, **said}
        return closed, confided(Draft(kind, letter.agent_id, facts, letter.run_id), keys)

    # --- sealing --------------------------------------------------------------------------------

    def _sealed(self, given: GivenUp) -> tuple[DeadLetter, Keys, SymbiError]:
        """The letter of something that was given up as it is to be kept, under which keys, and the error that it may tell."""
        made = DeadLetter(
            given.run_id, given.kind, AgentId(""), "", given.error.code, given.attempts, rfc3339(self._clock.now_ns())
        )
        error, about = given.error, error_label(given.error).subjects
        record, payload = self._runs.get_run(given.run_id), given.payload
        ids: tuple[KeyId, ...] = ()
        if record is not None:
            made = replace(made, agent_id=record.agent_id, file=record.file)
            # Its error may quote whatever the body has seen, and so is sealed by every key that seals anything of it.
            seen = [data for one in self._effects.effects_of(record.run_id) for data in (one.result, one.error)]
            ids = _keys_in(record.inputs, record.grant, record.labels, record.output, record.error, *seen)
            if self._living(ids) == ids:
                opened = opened_run(record, self._vault)
                made = replace(made, inputs=opened.inputs, grant=opened.grant, labels=opened.labels)
            else:  # what it knew is not copied any more, nor what its error quotes of it
                ids, about, error = (), (), erased(record.run_id)
        elif payload is not None:
            about = join_subjects(payload.task.everybody, about)
            made = replace(
                made, agent_id=payload.agent_id, file=payload.file, inputs=encode_result(dict(payload.inputs)),
                grant=payload.task.grant_json, labels=payload.task.labels_json,
            )  # fmt: skip
        else:
            msg = f"nothing is on record of run `{given.run_id}` that is given up"
            raise InternalError(msg, code="internal.letter")
        keys = self._keys(made.declared, about, ids)
        return sealed_letter(replace(made, error=encode_error(error)), keys), keys, error

    def _living(self, ids: Sequence[KeyId]) -> tuple[KeyId, ...]:
        """Those of some keys that were not destroyed."""
        living: list[KeyId] = []
        for key_id in ids:
            try:
                self._vault.known((key_id,))
            except DecryptionFailed as error:
                if error.fields.get("reason") != "erased":
                    raise
            except ConfigError as error:
                raise _unsealable(error) from error
            else:
                living.append(key_id)
        return tuple(living)

    def _keys(self, agent: AgentId, subjects: Sequence[str], ids: Sequence[KeyId]) -> Keys:
        """The keys of these subjects and those with these ids; or of the agent, where everything is to be sealed."""
        names = tuple(subjects)
        if not names and not ids and self._vault.all_agents:
            names = (agent_subject(agent),)
        try:
            made = self._vault.keys_now(names)
            return self._vault.keys_of(tuple(sorted({*ids, *made.ids})))
        except (InputError, VerificationError) as error:
            raise _unsealable(error) from error


def sealed_letter(letter: DeadLetter, keys: Keys) -> DeadLetter:
    """A letter as it is kept."""
    return replace(
        letter,
        inputs=keys.seal_optional(letter.inputs, _place(letter, "inputs")),
        grant=keys.seal_optional(letter.grant, _place(letter, "task_grant")),
        labels=keys.seal_optional(letter.labels, _place(letter, "labels")),
        error=keys.seal_optional(letter.error, _place(letter, "error")),
    )


def opened_letter(letter: DeadLetter, vault: Vault | None) -> DeadLetter:
    """A letter as it was; on the store's thread.

    Raises:
        InputError: What it knew was erased.
        DecryptionFailed: Something of it was altered.
        ConfigError: There is no master key.
    """
    try:
        return replace(
            letter,
            inputs=open_column(vault, letter.inputs, _place(letter, "inputs")),
            grant=open_column(vault, letter.grant, _place(letter, "task_grant")),
            labels=open_column(vault, letter.labels, _place(letter, "labels")),
            error=open_column(vault, letter.error, _place(letter, "error")),
            note=open_column(vault, letter.note, _place(letter, "note")),
        )
    except DecryptionFailed as error:
        if error.fields.get("reason") != "erased":
            raise
        raise erased(letter.run_id) from error


def read_json(data: bytes | None) -> Any:
    """What a column of an opened letter says.

    Raises:
        StoreUnavailable: It is not JSON.
    """
    try:
        return None if data is None else json.loads(data)
    except ValueError as error:
        msg = "the store holds a dead letter that was not written by it"
        raise StoreUnavailable(msg, code="unavailable.store_damaged") from error


def erased(run_id: RunId) -> InputError:
    """The error of a letter whose payload is gone."""
    msg = f"what run `{run_id}` knew of a data subject was erased"
    return InputError(msg, code="run.erased", hint="start a new run")


def unknown(run_id: RunId, known: Iterable[RunId]) -> InputError:
    """The error of a letter that is not there."""
    hint = did_you_mean(run_id, known) or "`symbi dlq list` shows them"
    return InputError(f"there is no dead letter `{run_id[:64]}`", code="input.letter", hint=hint)


def not_open(letter: DeadLetter) -> InputError:
    """The error of a letter that is closed."""
    how = f" as run `{letter.became}`" if letter.became else ""
    msg = f"dead letter `{letter.run_id}` was {letter.state.value}{how} before"
    return InputError(msg, code="input.letter", hint="`symbi dlq list` shows those that are open")


def check_reason(why: str) -> None:
    """Return if a reason is one line.

    Raises:
        InputError: It is not.
    """
    if not 0 < len(why) <= MAX_WHY_CHARS or not why.isprintable():
        msg = f"a reason is one line of 1 to {MAX_WHY_CHARS} printable characters"
        raise InputError(msg, code="input.usage", hint="give `--reason`")


def _unsealable(error: SymbiError) -> StoreUnavailable:
    msg = f"what is about a data subject cannot be sealed: {error.message}"
    return StoreUnavailable(msg, code="unavailable.sealing", hint=error.hint)


def _place(letter: DeadLetter, column: str) -> bytes:
    return place("dead_letters", column, letter.run_id)


def _keys_in(*columns: bytes | None) -> tuple[KeyId, ...]:
    return tuple(sorted({key for data in columns if is_sealed(data) for key in read_sealed(data or b"").keys}))
