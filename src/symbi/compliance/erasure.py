"""Erasing a subject, in steps that a crash at any moment leaves to be asked for again.

1. a legal hold refuses, also one on somebody whom a value is about too; so does what is under way about the subject,
   unless whoever asks includes it;
2. what will vanish is read, to be searched for afterwards; every other store deletes what it holds;
3. in one transaction, the keys are overwritten and it is noted how far the erasure has come; then stores that delete do it
   once more, for whoever had the keys in memory may have written meanwhile;
4. the write-ahead log is moved into the file and cut to nothing;
5. every byte of every file is searched for the name, the values and the destroyed keys; where something is found in the
   store's own file, that is written anew, once, and all is searched again;
6. the certificate is signed; in one transaction, it is kept, its digest is put on the trail as `subject.erased`, and it is
   seen once more that no key lives.

After step 3 nobody can open the values any more, and whoever asks again begins at step 4. The trail never says `erased`
while a key lives.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio.to_thread
import msgspec

from symbi.audit.event import AuditEventType, Draft
from symbi.compliance.certificate import certificate_digest, sign_certificate
from symbi.compliance.forms import Sought, Wanted
from symbi.compliance.port import Erasure, ErasureState, OpenWork, Subject
from symbi.compliance.residue import MAX_PATTERNS, Findings, set_apart
from symbi.compliance.rooms import Order, PrivacyRooms, SubjectKeys
from symbi.compliance.sealed import LOST_KEY, personal_part
from symbi.errors import InputError
from symbi.policy.about import subject_name
from symbi.types import OPERATOR_AGENT, JsonValue, KeyId

STORE_FILE: Final = "symbi.db"  # is written anew where something is left in it
MAX_TOLD: Final = 10  # of what is under way, in an error


@dataclass(slots=True)
class _Course:
    """One erasure, while it goes on."""

    order: Order
    keys: SubjectKeys
    wanted: Wanted
    facts: dict[str, Any]
    resumed: bool
    held: frozenset[KeyId] = frozenset()
    since: int = 0  # the last event before what will vanish is read


class Eraser:
    """Erases subjects.

    Args:
        rooms: What it stands on.
    """

    def __init__(self, rooms: PrivacyRooms) -> None:
        self._rooms = rooms
        self._turn = anyio.Lock()  # two at once would each destroy what the other reads

    async def erase(self, order: Order) -> dict[str, JsonValue]:
        """Erase a subject, or go on with an erasure that was broken off; returns the certificate.

        Raises:
            InputError: Nothing is kept of it; there is a hold; something about it is under way; or more about it was
                recorded while it was erased.
            StoreUnavailable: A store cannot be read or written, or a reader holds old pages; asking again goes on.
        """
        async with self._turn:
            course = await self._begin(order)
            if course.keys.living:
                await self._gather(course)
                await self._destroy(course)
            self._rooms.probe("erase.destroyed")
            await self._delete_more(course)
            await self._rooms.log.read(self._rooms.store.let_go)
            self._rooms.probe("erase.let-go")
            findings = await self._rooms.search(course.wanted)
            if any(find.place == STORE_FILE for find in findings.finds if find.sought is not Sought.ORDINARY):
                await self._rooms.log.read(partial(self._rooms.store.let_go, rewrite=True))
                findings = await self._rooms.search(course.wanted)
            self._rooms.probe("erase.searched")
            return await self._certify(course, findings)

    async def _begin(self, order: Order) -> _Course:
        rooms = self._rooms
        keys = await rooms.log.read(partial(rooms.keys_of, order.subject))
        if not keys.rows:
            msg = f"nothing is kept about this subject (pseudonym `{keys.pseudonym}`)"
            raise InputError(msg, code="privacy.unknown", hint="`symbi privacy scan` searches the files all the same")
        if keys.living:
            await rooms.log.read(partial(self._refuse, order, keys))
        wanted = Wanted.empty(MAX_PATTERNS)
        wanted.add_text(subject_name(order.subject), Sought.NAME)
        for value in order.values:
            wanted.add_text(value, Sought.GIVEN)
        noted = await rooms.log.read(partial(rooms.store.erasures, keys.pseudonym))
        facts: dict[str, Any] = {"stores": {}, "open": [], "crowd": [], "opened": False, "unopened": 0}
        if noted:
            before = msgspec.json.decode(noted[0].facts)
            facts |= {"stores": before["stores"], "open": before["open"], "crowd": before.get("crowd", [])}
            facts["unopened"] = before.get("search", before).get("unopened", 0)
        resumed = bool(noted) and noted[0].state is ErasureState.DESTROYED
        return _Course(order, keys, wanted, facts, resumed)

    def _refuse(self, order: Order, keys: SubjectKeys) -> Sequence[OpenWork]:
        """Return what is under way, if nothing forbids the erasure; on the store's thread."""
        hold = self._rooms.keys.hold_of(keys.pseudonym)
        if hold is not None:
            msg = f"subject `{keys.pseudonym}` is under a legal hold since {hold.held_at}: nothing is erased"
            raise InputError(
                msg, code="privacy.held", hint="`symbi privacy list` says why; `symbi privacy release` ends it"
            )
        under_way = self._rooms.store.open_work(keys.subject().keys | keys.crowd_subject().keys)
        if under_way and not order.include_open:
            told = ", ".join(f"{work.kind} `{work.id}` ({work.state})" for work in under_way[:MAX_TOLD])
            more = f" and {len(under_way) - MAX_TOLD} more" if len(under_way) > MAX_TOLD else ""
            msg = f"something about subject `{keys.pseudonym}` is under way: {told}{more}"
            hint = "let it end, or add `--include-open`: then it cannot go on, and says that its data was erased"
            raise InputError(msg, code="privacy.open", hint=hint)
        return under_way

    async def _gather(self, course: _Course) -> None:
        """Read what will vanish, and let the stores do their part."""
        course.facts["opened"] = not course.resumed  # else what broke off has destroyed keys already
        course.since = self._rooms.log.sequence
        everybody = course.keys.subject()
        course.held = await self._rooms.log.read(self._held_keys)
        if course.held:
            await self._rooms.require_all()  # what is not there may be about one on hold too
        for store in self._rooms.stores:
            async for held in store.export(everybody):
                if held.unopened != "erased" and not course.held.isdisjoint(held.others):
                    raise _held_too(everybody.pseudonym, f"`{held.place}` of `{held.record}`")
                if held.unopened not in {"", "erased"}:
                    course.facts["unopened"] += 1
                course.wanted.add_opened(personal_part(held))
        texts = await self._rooms.log.read(self._rooms.texts)
        await anyio.to_thread.run_sync(partial(set_apart, course.wanted, texts))
        for row in (*course.keys.living, *course.keys.living_crowd):
            for secret in (row.wrapped, row.name):
                if secret is not None:
                    course.wanted.add_secret(secret)
        self._rooms.probe("erase.gathered")
        all_keys = Subject(everybody.pseudonym, everybody.keys | course.keys.crowd_subject().keys)
        for store in self._rooms.stores:
            done = await store.erase(all_keys)
            before = course.facts["stores"].get(store.name)
            places = dict(done.places)
            if (
                before is not None and course.resumed and done.what != LOST_KEY
            ):  # what was deleted before a crash is there no more
                places = {
                    name: places.get(name, 0) + before["places"].get(name, 0) for name in {*places, *before["places"]}
                }
            course.facts["stores"][store.name] = {"what": done.what, "places": places}
        self._rooms.probe("erase.stores")

    async def _destroy(self, course: _Course) -> None:
        rooms = self._rooms
        course.facts["crowd"] = [*course.facts["crowd"], *(row.key_id for row in course.keys.living_crowd)]

        def destroy() -> tuple[None, tuple[Draft, ...]]:
            keys = rooms.keys_of(course.order.subject)
            if self._held_keys() != course.held:
                msg = "a hold was put on somebody while this was begun"
                raise InputError(msg, code="privacy.again", hint="erase it again")
            living = frozenset(row.key_id for row in keys.living)
            # What was recorded since it was read: a hold keeps that too.
            if course.held and (where := rooms.about_both(living, course.held, course.since)) is not None:
                raise _held_too(keys.pseudonym, where)
            under_way = self._refuse(course.order, keys)
            course.facts["open"] = [{"kind": one.kind, "id": one.id, "state": one.state} for one in under_way]
            rooms.vault.destroy(course.order.subject)
            rooms.probe("erase.in-transaction")
            noted = msgspec.json.encode(course.facts)
            rooms.store.put_erasure(Erasure(keys.pseudonym, ErasureState.DESTROYED, noted, rooms.now()))
            return None, ()

        await rooms.log.transact(destroy)

    async def _delete_more(self, course: _Course) -> None:
        """Have stores delete what was written since they did, under keys that are no more."""
        gone = course.keys.subject().keys | frozenset(course.facts["crowd"])
        for store in self._rooms.stores:
            told = course.facts["stores"].get(store.name)
            if told is not None and told["what"] != LOST_KEY:
                places = (await store.erase(Subject(course.keys.pseudonym, gone))).places
                told["places"] = {
                    name: told["places"].get(name, 0) + places.get(name, 0) for name in {*told["places"], *places}
                }

    def _held_keys(self) -> frozenset[KeyId]:
        """The keys of all who are under a legal hold; on the store's thread."""
        holds = self._rooms.keys.holds()
        return frozenset(key.key_id for hold in holds for key in self._rooms.keys.subject_keys(hold.pseudonym))

    async def _certify(self, course: _Course, findings: Findings) -> dict[str, JsonValue]:
        rooms, order = self._rooms, course.order
        keys = await rooms.log.read(partial(rooms.keys_of, order.subject))
        search = findings.as_json(course.wanted) | {"clean": findings.clean, "opened_before": course.facts["opened"]}
        search["unopened"] = course.facts["unopened"]
        crowd = set(course.facts["crowd"])
        destroyed: list[JsonValue] = [
            {"key_id": row.key_id, "destroyed_at": row.destroyed_at, "of_many": row.key_id in crowd}
            for row in (*keys.rows, *(one for one in keys.crowd if one.key_id in crowd))
            if row.wrapped is None
        ]
        facts: dict[str, JsonValue] = {
            "pseudonym": keys.pseudonym,
            "erased_at": rooms.now(),
            "by": dict(order.by),
            "reason": order.reason,
            "keys": destroyed,
            "stores": _stores(course.facts["stores"]),
            "open": course.facts["open"],
            "trail": {"events": rooms.log.sequence, "head": await rooms.log.read(rooms.head)},
            "search": search,
        }
        certificate = sign_certificate(facts, rooms.signing())
        digest = certificate_digest(certificate)

        def certify() -> tuple[None, tuple[Draft]]:
            if rooms.keys_of(order.subject).living:
                msg = f"more about subject `{keys.pseudonym}` was recorded while it was erased"
                raise InputError(msg, code="privacy.again", hint="erase it again")
            kept = msgspec.json.encode(certificate)
            rooms.store.put_erasure(Erasure(keys.pseudonym, ErasureState.CERTIFIED, kept, rooms.now()))
            details: dict[str, JsonValue] = {
                "pseudonym": keys.pseudonym, "reason": order.reason, "by": dict(order.by), "certificate": digest,
                "keys": len(destroyed), "residue": findings.residue, "unread": len(findings.unread),
                "left_out": course.wanted.left_out,
            }  # fmt: skip
            return None, (Draft(AuditEventType.SUBJECT_ERASED, OPERATOR_AGENT, details),)

        await rooms.log.transact(certify)
        rooms.probe("erase.certified")
        return certificate


def _held_too(pseudonym: str, where: str) -> InputError:
    msg = f"something about subject `{pseudonym}` is also about one who is under a legal hold"
    return InputError(msg, code="privacy.held", hint=f"it stands in {where}; release that hold first")


def _stores(stores: Mapping[str, Any]) -> dict[str, JsonValue]:
    return {name: {"what": one["what"], "places": one["places"]} for name, one in sorted(stores.items())}
