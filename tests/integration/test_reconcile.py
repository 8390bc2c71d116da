"""Calls in doubt that their own server can be asked about: it happened, it did not, or it stays in doubt."""

import json

import pytest

from symbi.agent.journal import RunState
from symbi.audit.event import AuditEventType as T
from symbi.audit.event import parse_event
from symbi.errors import EffectInDoubt, StoreUnavailable
from symbi.guard.ledger import EffectState
from symbi.testing.clock import ManualClock
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of, simulated
from symbi.tools.port import RawToolResult

pytestmark = pytest.mark.anyio

AGENT = """
agent payer(to: String) -> Any {
    capabilities = ["bank.pay", "bank.find"]
    with sandbox = interpreter {
        let receipt = tool("bank.pay", to = to, amount = 5);
        [receipt, tool("bank.find", key = "none", to = to)]
    }
}
"""
CONFIG = """
[mcp]
tool_verification = "tofu"
[mcp.servers.bank]
command = ["none"]
manifest = "bank.toml"
timeout_s = 10.0
"""
MANIFEST = """
[server]
name = "bank"
[tools.find]
recovery = "read-only"
[tools.pay]
recovery = "reconcilable"
[tools.pay.query]
tool = "find"
arguments = { key = "$effect", to = "$arguments.to" }
field = "status"
happened = ["booked", 1]
not_happened = ["absent"]
result = "receipt"
"""
ALL = '@id("all") permit (principal, action, resource);'
CALL_S = 2 * 10.0 + 5.0  # as long as a call may take from its decision on


class Bank:
    """Takes payments; not idempotent. It dies with the next payment, or before it is booked."""

    def __init__(self):
        self.booked: list[str] = []
        self.asked: list[dict] = []
        self.dies = ""
        self.says = None
        self.now_dead = False

    async def pay(self, values, effect_id):
        if self.dies == "before":
            self.now_dead = True
            return RawToolResult("", None, is_error=False)
        self.booked.append(effect_id)
        self.now_dead = self.dies == "after"
        return RawToolResult("", {"number": len(self.booked)}, is_error=False)

    async def find(self, values, _effect_id):
        self.asked.append(dict(values))
        if self.says is not None:
            return RawToolResult(self.says if isinstance(self.says, str) else "", self.says, is_error=False)
        if values["key"] in self.booked:
            receipt = {"number": self.booked.index(values["key"]) + 1}
            return RawToolResult("", {"status": "booked", "receipt": receipt}, is_error=False)
        return RawToolResult("", {"status": "absent"}, is_error=False)

    def probe(self, point: str) -> None:
        """The process dies before it can say what came of the payment: nothing more is written."""
        if point == "before_settle" and self.now_dead:
            msg = "the process died"
            raise StoreUnavailable(msg)


class Place:
    """A folder with the agent, and lives of a runtime in it."""

    def __init__(self, folder):
        self.folder = folder
        self.bank = Bank()
        self.clock = ManualClock()
        self.manifest = MANIFEST
        self.policies = ALL

    def open(self):
        (self.folder / "bank.toml").write_text(self.manifest)
        return open_in(
            self.folder, AGENT, config=CONFIG, policies=self.policies, probe=self.bank.probe, clock=self.clock
        )

    async def dies(self, when: str) -> None:
        """Run until the process dies around the payment."""
        self.bank.dies = when
        async with self.open() as one:
            with pytest.raises(StoreUnavailable):
                await one.runtime.run(one.compiled, one.compiled.agents[0], {"to": "ann"})
        self.bank.dies, self.bank.now_dead = "", False

    async def resumed(self, one):
        record = await one.runtime.find_open_run(None, None)
        return await one.runtime.resume(one.compiled, one.compiled.agents[0], record)

    def events(self, one, *kinds):
        found = [parse_event(stored.record) for stored in one.runtime.rooms.effects.read(1)]
        return [event for event in found if event.event_type in kinds]

    def effects(self, one, outcome):
        return one.runtime.rooms.effects.effects_of(outcome.run_id)


@pytest.fixture
def place(tmp_path):
    made = Place(tmp_path)
    with in_place_of({"bank": simulated("bank", {"pay": made.bank.pay, "find": made.bank.find})}):
        yield made


async def test_what_happened_has_the_result_that_the_server_tells_of_and_is_not_done_again(place):
    await place.dies("after")
    async with place.open() as one:
        outcome = await place.resumed(one)
        assert outcome.state is RunState.FINISHED
        assert outcome.output == [{"number": 1}, {"status": "absent"}]
        assert len(place.bank.booked) == 1
        payment, _ = place.effects(one, outcome)
        assert (payment.state, json.loads(payment.result)) == (EffectState.RECONCILED, {"number": 1})
        (event,) = place.events(one, T.EFFECT_RECONCILED)
        assert event.details["outcome"] == "happened"
        assert event.details["by"] == "bank.find"
        query = [e for e in place.events(one, T.DECISION_ALLOW) if e.details["effect_id"] == event.details["query"]]
        assert query[0].details["action"] == "InvokeTool::bank.find"
        assert event.run_id == outcome.run_id
    assert place.bank.asked[0] == {"key": place.bank.booked[0], "to": "ann"}


async def test_what_did_not_happen_is_done_once_it_cannot_come_any_more(place):
    await place.dies("before")
    async with place.open() as one:
        place.clock.advance(CALL_S - 0.1)
        outcome = await place.resumed(one)
        assert isinstance(outcome.error, EffectInDoubt)
        assert outcome.state is RunState.HELD
        assert 0 < outcome.error.fields["retry_after_s"] <= 0.11
        assert place.bank.booked == []
        place.clock.advance(0.2)
        outcome = await place.resumed(one)
        assert outcome.output == [{"number": 1}, {"status": "absent"}]
        payment, _ = place.effects(one, outcome)
        assert (payment.state, payment.attempt) == (EffectState.CONFIRMED, 2)
        (event,) = place.events(one, T.EFFECT_RECONCILED)
        assert (event.details["outcome"], event.details["state"]) == ("not_happened", "unknown")
    assert place.bank.booked == [payment.effect_id]


async def test_a_manifest_can_say_that_the_word_of_the_server_is_final(place):
    place.manifest = MANIFEST + "after_s = 0\n"
    await place.dies("before")
    async with place.open() as one:
        assert (await place.resumed(one)).state is RunState.FINISHED
    assert len(place.bank.booked) == 1


@pytest.mark.parametrize(
    "says",
    [
        {"status": "perhaps"}, {"status": "Booked"}, {"status": True}, {"status": 1.0}, {"status": ["booked"]}, {},
        {"status": {"status": "booked"}}, "status: booked", "booked", [{"status": "booked"}], {"status": "booked"},
        {"status": None, "receipt": 3}, {"state": {"status": "booked", "receipt": 1}},
    ],
)  # fmt: skip
async def test_anything_but_the_declared_words_in_the_declared_field_leaves_it_in_doubt(place, says):
    await place.dies("after")
    place.bank.says = says
    async with place.open() as one:
        place.clock.advance(1000)
        outcome = await place.resumed(one)
        assert outcome.state is RunState.HELD
        assert isinstance(outcome.error, EffectInDoubt)
        (payment,) = place.effects(one, outcome)
        assert (payment.state, payment.error) == (EffectState.UNKNOWN, None)
        assert place.events(one, T.EFFECT_RECONCILED) == []
    assert len(place.bank.booked) == 1


async def test_an_answer_as_text_is_read_as_the_object_that_it_is(place):
    await place.dies("after")
    place.bank.says = '{"status": "booked", "receipt": "r-1"}'
    async with place.open() as one:
        outcome = await place.resumed(one)
        assert outcome.output[0] == "r-1"


async def test_a_query_that_policy_denies_is_not_asked(place):
    await place.dies("after")
    place.policies = ALL + '\n@id("no") forbid (principal, action == Action::"InvokeTool::bank.find", resource);'
    async with place.open() as one:
        outcome = await place.resumed(one)
        assert isinstance(outcome.error, EffectInDoubt)
        assert "could not be asked" in outcome.error.message
        assert place.bank.asked == []
        denied = place.events(one, T.DECISION_DENY)
        assert [event.details["policies"][0]["id"] for event in denied][-1] == "no"


async def test_a_class_that_was_taken_back_counts_no_more(place):
    await place.dies("after")
    place.manifest = MANIFEST[: MANIFEST.index("[tools.pay]")]
    async with place.open() as one:
        outcome = await place.resumed(one)
        assert outcome.state is RunState.HELD
    assert place.bank.asked == []
    assert len(place.bank.booked) == 1
