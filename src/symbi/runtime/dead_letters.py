"""What was given up: messages and runs that no retry and no restart brought to their end, kept until somebody decides.

```
 given up ──► open ──► replayed, as a new run with the same inputs, labels and grant
                └────► dropped, by somebody, for a reason; or because the queue is full
```

A letter is named by the run that was given up, so that the same run is put here once, however often that is tried. Its
payload is sealed under the keys that sealed what the run knew; a closed letter has none any more.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from symbi.agent.journal import RunRecord, RunStore
from symbi.agent.sealing import opened_run
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
)
from symbi.guard.confidential import confided
from symbi.guard.ledger import EffectStore
from symbi.guard.outcome import encode_error, encode_result, error_label
from symbi.guard.vault import Keys, Vault, agent_subject, place
from symbi.policy.flow import MORE_SUBJECTS, join_subjects
from symbi.runtime import letters
from symbi.runtime.letters import (
    FULL,
    DeadLetter,
    DeadLetterStore,
    LetterState,
    Wanted,
    check_reason,
    keys_in,
    lost,
    not_open,
    nothing_left,
    opened_letter,
    sealed_letter,
    unknown,
)
from symbi.runtime.letters import GivenUp as GivenUp  # noqa: PLC0414 - others take these three from here
from symbi.runtime.letters import LetterKind as LetterKind  # noqa: PLC0414 - likewise
from symbi.runtime.letters import Payload as Payload  # noqa: PLC0414 - likewise
from symbi.runtime.sealed_mail import SealedMail, transact
from symbi.types import SYSTEM_AGENT, AgentId, JsonValue, KeyId, RunId

MAX_TOLD_CHARS: Final = (
    65_536  # of an error, on the trail: its events are bounded, and a letter is kept whatever its error
)


class DeadLetters:
    """The queue of what was given up.

    Args:
        store: Keeps letters.
        runs: The journal, in the same store.
        effects: The ledger, in the same store.
        log: Makes letters durable, each with its event.
        mails: Seals and opens.
        vault: Has the keys of whom a letter is about.
        clock: For their times.

    Attributes:
        store: Keeps letters; its methods run on the store's thread.
    """

    def __init__(
        self,
        store: DeadLetterStore,
        runs: RunStore,
        effects: EffectStore,
        log: AuditLog,
        mails: SealedMail,
        vault: Vault,
        clock: Clock,
    ) -> None:
        self.store = store
        self._runs = runs
        self._effects = effects
        self._log = log
        self._mails = mails
        self._vault = vault
        self._clock = clock

    async def put(self, given: GivenUp) -> DeadLetter:
        """Put something here; returns once that is durable. The same run is put once.

        Raises:
            InternalError: Nothing is on record of the run, and no payload was given.
            StoreUnavailable: It cannot be kept.
        """
        return await transact(self._log, self._mails, partial(self.put_now, given), wait=True)

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
            "reason": str(error)[:MAX_TOLD_CHARS],
        }
        put = confided(Draft(AuditEventType.LETTER_PUT, letter.agent_id, facts, letter.run_id), keys)
        return letter, (put, *self._make_room(letter.declared))

    def _make_room(self, declared: AgentId) -> list[Draft]:
        """The oldest letters of an agent make room, so that one that fails all the time pushes nobody else's out."""
        oldest = self.store.letters(Wanted(declared, LetterState.OPEN, letters.MAX_OPEN, beyond=letters.MAX_OPEN))
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
            InputError: There is none, or it is closed, or what it knew was erased, or was too large to be kept.
            DecryptionFailed: Something of it was altered.
            ConfigError: There is no master key.
        """
        letter = await self._log.read(lambda: opened_letter(self._open(run_id), self._mails))
        if letter.inputs is None:
            raise nothing_left(letter)
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
            try:
                opened, ids = self._opened(record)
                made = replace(made, inputs=opened.inputs, grant=opened.grant, labels=opened.labels)
            except DecryptionFailed as loss:  # what it knew is not copied any more, nor what its error quotes of it
                about, error = (), lost(record.run_id, loss)
        elif payload is not None:
            about = join_subjects(payload.task.everybody, about)
            inputs = None if payload.inputs is None else encode_result(dict(payload.inputs))
            made = replace(
                made, agent_id=payload.agent_id, file=payload.file, inputs=inputs,
                grant=payload.task.grant_json, labels=payload.task.labels_json,
            )  # fmt: skip
        else:
            msg = f"nothing is on record of run `{given.run_id}` that is given up"
            raise InternalError(msg, code="internal.letter")
        keys = self._keys(made.declared, about, ids)
        return sealed_letter(replace(made, error=encode_error(error)), self._mails, keys), keys, error

    def _opened(self, record: RunRecord) -> tuple[RunRecord, tuple[KeyId, ...]]:
        """A run as it was, and every key that seals anything of it: its error may quote whatever its body has seen.

        Raises:
            DecryptionFailed: Something of it was erased, or altered.
        """
        seen = [data for one in self._effects.effects_of(record.run_id) for data in (one.result, one.error)]
        ids = keys_in(record.inputs, record.grant, record.labels, record.output, record.error, *seen)
        try:
            self._vault.known(ids)
            return opened_run(record, self._vault), ids
        except ConfigError as error:
            raise _unsealable(error) from error

    def _living(self, ids: Sequence[KeyId]) -> tuple[KeyId, ...]:
        """Those of some keys that are there, and were not destroyed."""
        living: list[KeyId] = []
        for key_id in ids:
            try:
                self._vault.known((key_id,))
            except DecryptionFailed as error:
                if error.fields.get("reason") not in {"erased", "key"}:
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


def _unsealable(error: SymbiError) -> StoreUnavailable:
    msg = f"what is about a data subject cannot be sealed: {error.message}"
    return StoreUnavailable(msg, code="unavailable.sealing", hint=error.hint)
