"""What is known of a person: exported, held, listed and searched for. How it is erased stands in `symbi.compliance.erasure`.

Nothing here puts the name of a subject where it is not sealed: events, errors and certificates name a pseudonym.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any, Final

import anyio.to_thread
import msgspec

from symbi.audit.event import AuditEventType, Draft
from symbi.compliance.erasure import Eraser
from symbi.compliance.forms import Sought, Wanted
from symbi.compliance.port import Held, Subject
from symbi.compliance.residue import MAX_PATTERNS, set_apart
from symbi.compliance.rooms import Order, PrivacyRooms, SubjectKeys, hold_place
from symbi.compliance.sealed import personal_part
from symbi.errors import DecryptionFailed, InputError
from symbi.guard.vault import Hold, SubjectKey, agent_of
from symbi.policy.about import subject_name
from symbi.policy.flow import MORE_SUBJECTS
from symbi.types import OPERATOR_AGENT, JsonValue, KeyId

HOLD_NOTE: Final = "subject_holds.note"
KEYS_AT_ONCE: Final = 1000  # read between two commits


class Privacy:
    """Answers what people may ask about the data of a subject.

    Args:
        rooms: What it stands on.
    """

    def __init__(self, rooms: PrivacyRooms) -> None:
        self.rooms = rooms
        self._eraser = Eraser(rooms)

    def pseudonym(self, subject: str) -> str:
        """What stands for a subject in the trail.

        Raises:
            InputError: It is no name.
            ConfigError: There is no master key.
        """
        return self.rooms.vault.pseudonym(subject_name(subject))

    async def export(self, order: Order) -> dict[str, JsonValue]:
        """All that can be opened about a subject: what, where it stands, from which run and effect, and when.

        Raises:
            InputError: Nothing is kept about it.
            StoreUnavailable: A store, or a part of the trail, cannot be read, or the export cannot be recorded.
        """
        keys = await self._known(order.subject)
        await self.rooms.require_all()
        records: list[JsonValue] = []
        unopened = erased = 0
        async for held in self._held(keys.subject()):
            if held.place == HOLD_NOTE:
                continue  # what the operator noted of a case is not for who asks
            gone = held.unopened == "erased"
            erased, unopened = erased + gone, unopened + (bool(held.unopened) and not gone)
            records.append(_held_json(held))
        crowd = 0
        for store in self.rooms.stores:
            crowd += sum((await store.holds(keys.crowd_subject())).values())
        at = self.rooms.now()
        details: dict[str, JsonValue] = {
            "pseudonym": keys.pseudonym, "records": len(records), "unopened": unopened, "erased": erased,
            "reason": order.reason, "by": dict(order.by),
        }  # fmt: skip
        await self.rooms.log.append(Draft(AuditEventType.SUBJECT_EXPORTED, OPERATOR_AGENT, details))
        return {
            "subject": subject_name(order.subject), "pseudonym": keys.pseudonym, "exported_at": at, "records": records,
            "unopened": unopened, "erased": erased, "among_many": crowd,
        }  # fmt: skip

    async def erase(self, order: Order) -> dict[str, JsonValue]:
        """Erase a subject; see `Eraser.erase`."""
        return await self._eraser.erase(order)

    async def hold(self, order: Order) -> dict[str, JsonValue]:
        """Keep the data of a subject from being erased, also before there is any.

        Raises:
            InputError: There is no reason, or it names the subject.
            StoreUnavailable: It cannot be recorded.
        """
        if not order.reason:
            msg = "a hold needs a reason"
            raise InputError(msg, code="privacy.reason")
        name, rooms = subject_name(order.subject), self.rooms
        pseudonym, at = self.pseudonym(name), rooms.now()
        note = msgspec.json.encode({"reason": order.reason, "by": dict(order.by)})

        def hold() -> tuple[None, tuple[Draft]]:
            sealed = rooms.vault.keys_now((name,)).seal(note, hold_place(pseudonym))
            rooms.keys.set_hold(Hold(pseudonym, sealed, at))
            return None, (self._draft(AuditEventType.SUBJECT_HELD, pseudonym, order),)

        await rooms.log.transact(hold)
        return {"pseudonym": pseudonym, "held_at": at}

    async def release(self, order: Order) -> dict[str, JsonValue]:
        """End a hold.

        Raises:
            InputError: There is none.
            StoreUnavailable: It cannot be recorded.
        """
        pseudonym = self.pseudonym(order.subject)

        def release() -> tuple[None, tuple[Draft]]:
            if not self.rooms.keys.release_hold(pseudonym):
                msg = f"there is no hold on subject `{pseudonym}`"
                raise InputError(msg, code="privacy.not_held", hint="`symbi privacy list` shows the holds")
            return None, (self._draft(AuditEventType.SUBJECT_RELEASED, pseudonym, order),)

        await self.rooms.log.transact(release)
        return {"pseudonym": pseudonym, "released_at": self.rooms.now()}

    async def listed(self) -> list[JsonValue]:
        """The subjects: pseudonym, name while a key lives, hold, and whether they were erased.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        rows: dict[str, dict[str, Any]] = {}
        after: KeyId | None = KeyId("")
        while after is not None:
            part, after = await self.rooms.log.read(partial(self._page, after))
            for key, name, unopened in part:
                self._list_key(rows, key, name, unopened)
        for pseudonym, facts in await self.rooms.log.read(self._more):
            _subject_row(rows, pseudonym).update(facts)
        return [rows[pseudonym] for pseudonym in sorted(rows)]

    async def scan(self, order: Order) -> dict[str, JsonValue]:
        """Search every file for a subject in plain text: for its name, the values given, and what can be opened of it.

        Raises:
            InputError: It is no name.
            StoreUnavailable: A store cannot be read.
        """
        keys = await self.rooms.log.read(partial(self.rooms.keys_of, order.subject))
        wanted = Wanted.empty(MAX_PATTERNS)
        wanted.add_text(subject_name(order.subject), Sought.NAME)
        for value in order.values:
            wanted.add_text(value, Sought.GIVEN)
        async for held in self._held(keys.subject()):
            wanted.add_opened(personal_part(held))
        texts = await self.rooms.log.read(self.rooms.texts)
        await anyio.to_thread.run_sync(partial(set_apart, wanted, texts))
        findings = await self.rooms.search(wanted)
        return {"pseudonym": keys.pseudonym, "clean": findings.clean, **findings.as_json(wanted)}

    async def _known(self, subject: str) -> SubjectKeys:
        keys = await self.rooms.log.read(partial(self.rooms.keys_of, subject))
        if not keys.rows:
            raise unknown(keys.pseudonym)
        return keys

    async def _held(self, subject: Subject) -> AsyncIterator[Held]:
        for store in self.rooms.stores:
            async for held in store.export(subject):
                yield held

    def _draft(self, kind: AuditEventType, pseudonym: str, order: Order) -> Draft:
        return Draft(kind, OPERATOR_AGENT, {"pseudonym": pseudonym, "reason": order.reason, "by": dict(order.by)})

    def _page(self, after: KeyId) -> tuple[list[tuple[SubjectKey, str, str]], KeyId | None]:
        keys = self.rooms.store.all_subject_keys(after, KEYS_AT_ONCE)
        part = []
        for key in keys:
            name, unopened = "", ""
            if key.wrapped is not None:
                try:
                    name = self.rooms.vault.name_of(key)
                except DecryptionFailed as error:
                    unopened = str(error.fields.get("reason", "altered"))
            part.append((key, name, unopened))
        return part, keys[-1].key_id if len(keys) == KEYS_AT_ONCE else None

    def _list_key(self, rows: dict[str, dict[str, Any]], key: SubjectKey, name: str, unopened: str) -> None:
        row = _subject_row(rows, key.pseudonym)
        if key.wrapped is None:
            row["destroyed_keys"] += 1
            return
        row["living_keys"] += 1
        row["unopened"] = unopened
        if name == MORE_SUBJECTS:
            row["kind"] = "many"
        elif (agent := agent_of(name)) is not None:
            row |= {"kind": "agent", "name": agent}
        elif name:
            row["name"] = name

    def _more(self) -> Iterable[tuple[str, Mapping[str, JsonValue]]]:
        held = [(hold.pseudonym, {"hold": self.rooms.hold_json(hold)}) for hold in self.rooms.keys.holds()]
        erased = [
            (one.pseudonym, {"erasure": {"state": one.state.value, "at": one.at}})
            for one in self.rooms.store.erasures()
        ]
        return [*held, *erased]


def unknown(pseudonym: str) -> InputError:
    """The error where nothing was ever kept of a subject."""
    msg = f"nothing is kept about this subject (pseudonym `{pseudonym}`)"
    hint = "values are about a subject where a manifest or `symbi run --subject` says so; `symbi privacy scan` searches the files"
    return InputError(msg, code="privacy.unknown", hint=hint)


def _subject_row(rows: dict[str, dict[str, Any]], pseudonym: str) -> dict[str, Any]:
    return rows.setdefault(
        pseudonym,
        {
            "pseudonym": pseudonym, "kind": "person", "name": None, "unopened": "", "living_keys": 0, "destroyed_keys": 0,
            "hold": None, "erasure": None,
        },
    )  # fmt: skip


def _held_json(held: Held) -> dict[str, JsonValue]:
    return {
        "place": held.place, "record": held.record, "run": held.run_id, "effect": held.effect_id, "at": held.at,
        "also_about": len(held.others), "value": held.value, "unopened": held.unopened,
    }  # fmt: skip
