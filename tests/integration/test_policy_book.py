"""The policy set and its one owner: each change is checked whole, recorded, and then in force for everybody at once."""

import json
from contextlib import asynccontextmanager

import anyio
import pytest

from symbi.audit.event import AuditEventType as T
from symbi.errors import (
    InputError,
    InternalError,
    PermitRefused,
    PolicyDenied,
    PolicySyntaxError,
    SignatureInvalid,
    StoreUnavailable,
)
from symbi.guard.action import InvokeTool, ReadClock, RunSlot, ToolRef, WriteLog
from symbi.policy.catalog import ToolType
from symbi.policy.compose import AgentRules
from symbi.policy.decision import Allow, Deny
from symbi.policy.engine import PolicySource
from symbi.policy.policies import PolicySet
from symbi.runtime.policies import Cause, PolicyBook, PolicyTerms
from symbi.runtime.port import Bundle, PolicyFile
from symbi.testing.gate import DENY_ALL, open_gate
from symbi.types import AgentId, Principal, RecoveryClass, RunId, ToolName

pytestmark = pytest.mark.anyio

AGENT = Principal(AgentId("a"))
CLOCK = '@id("clock") permit (principal, action == Action::"ReadClock", resource);'
LOG = '@id("log") permit (principal, action == Action::"WriteLog", resource);'


def bundle(text: str, name: str = "p.cedar") -> Bundle:
    return Bundle("policies", (PolicyFile(name, f"policies/{name}", text.encode()),))


@asynccontextmanager
async def open_book(text: str = CLOCK, terms: PolicyTerms | None = None, tools=(), folder=None):
    async with open_gate(DENY_ALL, folder=folder) as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, terms or PolicyTerms(), lambda: tools)
        await book.take_up([bundle(text)], Cause.START)
        yield gate, book


def events(gate, *kinds):
    return [event for event in gate.events() if event.event_type in kinds]


async def reads_clock(gate, slot=None) -> bool:
    try:
        async with gate.guard.enforce(ReadClock(principal=AGENT, slot=slot)) as permit:
            gate.guard.authority.redeem(permit, ReadClock)
    except PolicyDenied:
        return False
    return True


async def test_the_first_set_is_on_the_trail_before_anything_is_decided_by_it():
    async with open_book() as (gate, book):
        (event,) = events(gate, T.POLICY_CHANGED)
        assert (event.details["cause"], event.details["version"]) == ("start", book.current.version)
        assert event.details["added"] == ["clock"]
        assert await reads_clock(gate)


async def test_a_registered_policy_reaches_everybody_at_once_and_is_recorded_first():
    async with open_book() as (gate, book):
        write = WriteLog(principal=AGENT, message="x")
        assert isinstance(await book.evaluate_policy(write.request()), Deny)
        assert await book.register_policy(PolicySource("new.cedar", LOG)) == "log"
        assert isinstance(await book.evaluate_policy(write.request()), Allow)
        assert gate.engine.current is book.current
        event = events(gate, T.POLICY_CHANGED)[-1]
        assert (event.details["cause"], event.details["added"]) == ("registered", ["log"])
        assert event.details["version"] == book.current.version
        await book.take_up([bundle("")])
        assert isinstance(await book.evaluate_policy(write.request()), Allow)  # what was registered stays


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("permit (principal, action, resource)", ["policies/p.cedar:1:37"]),
        ("permit (principal, action, resource);\nforbid principal;\npermit (princpal, action, resource);", ["policies/p.cedar:2:8", "policies/p.cedar:3:9"]),
        ('permit (principal, action == Action::"ReadClok", resource);', ["policies/p.cedar:1:1"]),
        ('permit (principal, action == Action::"ReadClock", resource) when { context.a };', ["policies/p.cedar:1:1"]),
        (f"{CLOCK}\n{CLOCK}", ["policies/p.cedar:2:1"]),
    ],
)  # fmt: skip
async def test_a_broken_set_is_refused_with_all_its_places_and_the_old_one_stays(text, places):
    async with open_book() as (gate, book):
        old = book.current
        with pytest.raises(PolicySyntaxError):
            await book.take_up([bundle(text)])
        assert gate.engine.current is old
        assert await reads_clock(gate)
        (refused,) = events(gate, T.POLICY_REFUSED)
        assert [error.split(": ")[0] for error in refused.details["errors"]] == places
        assert refused.details["error_count"] == len(places)
        assert refused.details["version"] == old.version
        assert len(events(gate, T.POLICY_CHANGED)) == 1


async def test_bytes_that_are_no_text_are_refused_likewise():
    async with open_book() as (gate, book):
        old = book.current
        with pytest.raises(InputError, match="not UTF-8"):
            await book.take_up([Bundle("policies", (PolicyFile("p.cedar", "policies/p.cedar", b"\xff\xfe"),))])
        assert gate.engine.current is old
        assert len(events(gate, T.POLICY_REFUSED)) == 1


@pytest.mark.parametrize("text", ["", f"{LOG} permit (principal, action, resource);", CLOCK, "permit ("])
async def test_what_is_registered_is_one_policy_that_fits(text):
    async with open_book() as (gate, book):
        old = book.current
        with pytest.raises(InputError):
            await book.register_policy(PolicySource("new.cedar", text))
        assert gate.engine.current is old
        await book.refresh()
        assert gate.engine.current is old  # nothing of it was kept for the next change
        assert len(events(gate, T.POLICY_REFUSED)) == 1


async def test_a_change_that_cannot_be_recorded_does_not_happen(monkeypatch):
    async with open_book() as (gate, book):
        old = book.current

        def full(*_):
            raise StoreUnavailable("the disk is full")

        monkeypatch.setattr(gate.store, "append", full)
        with pytest.raises(StoreUnavailable, match="disk is full"):
            await book.take_up([bundle(f"{CLOCK}\n{LOG}")])
        assert gate.engine.current is old
        monkeypatch.undo()
        assert await reads_clock(gate)  # and the gate goes on with the old one
        assert len(events(gate, T.POLICY_CHANGED)) == 1
        await book.take_up([bundle(LOG)])
        assert not await reads_clock(gate)


async def test_an_empty_folder_is_a_set_that_denies():
    async with open_book() as (gate, book):
        await book.take_up([Bundle("policies", ())])
        assert not await reads_clock(gate)
        assert events(gate, T.POLICY_CHANGED)[-1].details["removed"] == ["clock"]


async def test_the_same_set_again_changes_nothing():
    async with open_book() as (gate, book):
        old = book.current
        await book.take_up([bundle(CLOCK)])
        assert gate.engine.current is old
        assert len(events(gate, T.POLICY_CHANGED)) == 1


async def test_a_change_revokes_every_lease():
    lasting = ReadClock(principal=AGENT)
    async with open_book() as (gate, book), gate.guard.lease(lasting, uses=9, seconds=60) as lease:
        lease.use({})
        await book.register_policy(PolicySource("new.cedar", LOG))
        with pytest.raises(PermitRefused):
            lease.use({})


async def test_a_policy_that_does_not_fit_a_new_tool_keeps_the_old_set_and_the_tool_denied():
    tools = []
    text = 'permit (principal, action == Action::"InvokeTool::s.go", resource) when { context.arguments.n == "x" };'
    async with open_book(text, tools=tools) as (gate, book):
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        tools.append(ToolType(ToolName("s.go"), schema))
        old = book.current
        with pytest.raises(PolicySyntaxError):
            await book.refresh()
        assert gate.engine.current is old
        ref = ToolRef(ToolName("s.go"), "s", "d" * 64, schema, verified=True, recovery=RecoveryClass.READ_ONLY)
        with pytest.raises(PolicyDenied):
            async with gate.guard.enforce(InvokeTool(principal=AGENT, tool=ref, values={"n": 1})):
                pytest.fail("the body ran")


async def test_nothing_unsigned_is_registered_where_signatures_are_asked_for():
    async with open_gate(DENY_ALL) as gate:
        book = PolicyBook(gate.engine, gate.log, gate.store, PolicyTerms(AgentRules.FULL, require_signed=True))
        with pytest.raises(SignatureInvalid, match="not signed"):
            await book.register_policy(PolicySource("new.cedar", LOG))
        with pytest.raises(SignatureInvalid, match="not signed"):
            await book.take_up([bundle(CLOCK)])
        assert not await reads_clock(gate)


# --- under load -------------------------------------------------------------------------------


def numbered(version: int) -> str:
    """A set that permits only in words of its own: its policies bear its number."""
    return f'@id("v{version}") permit (principal, action == Action::"ReadClock", resource);'


async def test_no_decision_is_by_a_mix_of_sets_while_sets_are_replaced_under_a_hundred_in_flight(tmp_path):
    async with open_book(numbered(0), folder=tmp_path) as (gate, book):
        number_of = {book.current.version: 0}
        done = 0

        async def ask(worker: int) -> None:
            nonlocal done
            for position in range(4):
                assert await reads_clock(gate, RunSlot(RunId(f"r{worker}"), position))
                done += 1

        async def change() -> None:
            number = 0
            while done < 400:
                number += 1
                await book.take_up([bundle(numbered(number))])
                number_of[book.current.version] = number

        async with anyio.create_task_group() as tasks:
            for worker in range(100):
                tasks.start_soon(ask, worker)
            tasks.start_soon(change)

        in_force, decided = None, 0
        for event in gate.events():
            if event.event_type == T.POLICY_CHANGED:
                in_force = event.details["version"]
            elif event.event_type == T.DECISION_ALLOW:
                decided += 1
                assert event.details["policy_version"] == in_force  # from its event on, the new set alone
                (policy,) = event.details["policies"]
                assert policy["id"] == f"v{number_of[in_force]}"
                record = gate.store.effect_at(RunId(event.run_id), event.details["position"])
                assert record.policy_version == in_force
                assert json.loads(record.decision)["policies"][0]["id"] == policy["id"]
        assert decided == 400
        assert len(number_of) > 3  # sets did change meanwhile


async def test_a_decision_in_flight_is_made_again_by_the_set_that_came_in_between():
    async with open_book() as (gate, book):
        waiting = anyio.Event()
        real = gate.log.transact

        async def slow(work, *, wait=False):
            if not wait and not waiting.is_set():
                waiting.set()
                await book.take_up([bundle(LOG)])
            return await real(work, wait=wait)

        gate.log.transact = slow
        assert not await reads_clock(gate)  # permitted when it was asked, forbidden when it would have been recorded
        assert events(gate, T.DECISION_ALLOW) == []


async def test_where_somebody_does_not_take_a_change_up_it_is_in_force_all_the_same_and_kept():
    async with open_book() as (gate, book):
        gate.engine.on_change(lambda _: 1 / 0)
        with pytest.raises(InternalError, match="not everybody"):
            await book.take_up([bundle(LOG)])
        assert not await reads_clock(gate)
        with pytest.raises(InternalError):
            await book.register_policy(PolicySource("r.cedar", CLOCK))
        assert {policy.id for policy in book.current.policies} == {"symbi.canary", "log", "clock"}


@pytest.mark.parametrize("error", [RecursionError, MemoryError, type("PanicException", (BaseException,), {})])
async def test_a_text_that_breaks_the_parser_is_refused_and_ends_nothing(monkeypatch, error):
    async with open_book() as (gate, book):
        old = book.current

        def broken(*_):
            raise error("deep")

        monkeypatch.setattr(PolicySet, "load", broken)
        with pytest.raises(PolicySyntaxError, match="cannot be read"):
            await book.take_up([bundle(LOG)])
        assert gate.engine.current is old
        assert len(events(gate, T.POLICY_REFUSED)) == 1


async def test_with_commits_that_fail_in_between_the_trail_and_the_set_in_force_still_agree(monkeypatch):
    async with open_book(numbered(0)) as (gate, book):
        append, calls = gate.store.append, 0

        def sometimes(events, head):
            nonlocal calls
            calls += 1
            if calls % 3 == 0:
                raise StoreUnavailable("the disk is full")
            append(events, head)

        monkeypatch.setattr(gate.store, "append", sometimes)
        failed = {"changes": 0, "effects": 0}

        async def ask(_worker: int) -> None:
            for _ in range(5):
                try:
                    await reads_clock(gate)
                except StoreUnavailable:
                    failed["effects"] += 1

        async def change() -> None:
            for number in range(1, 40):
                before = book.current
                try:
                    await book.take_up([bundle(numbered(number))])
                except StoreUnavailable:
                    failed["changes"] += 1
                    assert book.current is before

        async with anyio.create_task_group() as tasks:
            for worker in range(30):
                tasks.start_soon(ask, worker)
            tasks.start_soon(change)

        monkeypatch.undo()
        in_force = None
        for event in gate.events():
            if event.event_type == T.POLICY_CHANGED:
                assert event.details["previous"] == in_force or in_force is None
                in_force = event.details["version"]
            elif event.event_type == T.DECISION_ALLOW:
                assert event.details["policy_version"] == in_force
        assert in_force == book.current.version
        assert failed["changes"] > 5
        assert failed["effects"] > 5
        assert await reads_clock(gate)
