"""Delivery against a model: whatever is sent, published, opened, closed, held up, failed and restarted, in any order.

The model knows what was acknowledged and who listened when. Each subscriber gets what it was there for, in order, once;
each recipient everything that was sent to it, in the order of each sender, again only where it had not finished; a
broadcast waits for nobody.
"""

import tempfile
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbi.bus.parcels import ConsumerTerms
from symbi.bus.receiving import RetryTerms
from symbi.bus.rooms import BusTerms
from symbi.errors import Overloaded
from symbi.testing.open_bus import bus_over, settled

SENDERS, RECEIVERS = ["a", "c"], ["b", "d"]
TERMS = BusTerms(retry=RetryTerms(attempts=1000, first_s=0.5, most_s=4.0), mailbox=12)

OPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(SENDERS), st.sampled_from(RECEIVERS)),
    st.tuples(st.just("send"), st.sampled_from(SENDERS), st.sampled_from(RECEIVERS)),
    st.tuples(st.just("publish"), st.sampled_from(SENDERS), st.sampled_from(["t.x", "t.y"])),
    st.tuples(st.just("subscribe"), st.sampled_from(RECEIVERS), st.sampled_from(["t.>", "t.x", "*.y"])),
    st.tuples(st.just("durable"), st.sampled_from(RECEIVERS), st.sampled_from(["t.>", "t.x"])),
    st.tuples(st.just("leave"), st.integers(0, 5), st.just("")),
    st.tuples(st.just("open"), st.sampled_from(RECEIVERS), st.sampled_from(["quick", "fails", "stuck"])),
    st.tuples(st.just("close"), st.sampled_from(RECEIVERS), st.just("")),
    st.tuples(st.just("broadcast"), st.sampled_from(SENDERS), st.just("")),
    st.tuples(st.just("advance"), st.floats(0.1, 5), st.just("")),
    st.tuples(st.just("restart"), st.just(""), st.just("")),
    st.tuples(st.just("settle"), st.just(""), st.just("")),
)


def fits(pattern, topic):
    parts, words = pattern.split("."), topic.split(".")
    return all(part in {word, "*", ">"} for part, word in zip(parts, words, strict=False))


class World:
    """The bus under test, and what it must have done."""

    def __init__(self, folder):
        self.folder = folder
        self.keys = None
        self.number = 0
        self.sent = defaultdict(list)  # recipient -> (sender, number), in the order in which they were acknowledged
        self.finished = defaultdict(list)  # recipient -> (sender, number), as handlers ended
        self.listeners = []  # [pattern, what it must have, what it has, subscription]
        self.durable = {}  # name -> [pattern, what it must have, what it has, subscription]
        self.mailboxes = {}

    async def start(self):
        self.stack = AsyncExitStack()
        self.open = await self.stack.enter_async_context(
            bus_over(folder=self.folder, keys=self.keys, terms=TERMS, agents="abcd")
        )
        self.keys = self.open.keys
        self.bus = self.open.bus

    async def stop(self):
        await self.stack.aclose()
        self.mailboxes.clear()
        self.listeners.clear()
        for one in self.durable.values():
            one[3] = None

    async def step(self, name, one, two):
        self.number += 1
        number = self.number
        match name:
            case "send":
                try:
                    await self.bus.send_message(one, two, number)
                except Overloaded:
                    return
                self.sent[two].append((one, number))
            case "publish":
                reached = await self.bus.publish(one, two, number)
                heard = [x for x in (*self.listeners, *self.durable.values()) if fits(x[0], two)]
                assert reached == len(heard)
                for listener in heard:
                    listener[1].append(number)
            case "subscribe" if len(self.listeners) < 5:
                got = []
                subscription = await self.bus.subscribe(one, two, lambda message: got.append(message.body))
                self.listeners.append([two, [], got, subscription])
            case "durable":
                await self._durable(one, two)
            case "leave" if self.listeners:
                await settled(self._heard)
                gone = self.listeners.pop(one % len(self.listeners))
                assert gone[2] == gone[1]
                await gone[3].close()
            case "open":
                if one in self.mailboxes:
                    return
                self.mailboxes[one] = await self.bus.open_mailbox(one, self._handler(one, two), int, groups=["all"])
            case "close" if one in self.mailboxes:
                await self.mailboxes.pop(one).close()
            case "broadcast":
                with anyio.fail_after(30):
                    outcome = await self.bus.broadcast(one, "all", -number)
                assert set(outcome) == set(self.mailboxes)
            case "advance":
                await self.open.sleep.advance(one)
            case "restart":
                await self.stop()
                await self.start()
            case "settle":
                await settled()

    def _heard(self):
        return all(len(one[2]) >= len(one[1]) for one in (*self.listeners, *self._there()))

    def _there(self):
        return [one for one in self.durable.values() if one[3] is not None]

    async def _durable(self, agent, pattern):
        name = f"{agent}-{pattern}"
        known = self.durable.setdefault(name, [pattern, [], [], None])
        if known[3] is None:
            terms = ConsumerTerms(durable=name.replace(".", "_"))
            got = known[2]
            known[3] = await self.bus.subscribe(agent, pattern, lambda message: got.append(message.body), terms=terms)

    def _handler(self, me, how):
        async def handler(message):
            if message.body < 0:
                if how == "stuck":
                    await anyio.sleep_forever()
                return
            key = message.sender, message.body
            if how == "fails" and message.attempt % 2:
                msg = "no"
                raise ValueError(msg)
            if how == "stuck":
                await anyio.sleep_forever()
            self.finished[me].append(key)

        return handler

    async def heal(self):
        """Everybody is there and well; then everything arrives."""
        await self.stop()
        await self.start()
        for me in RECEIVERS:
            self.mailboxes[me] = await self.bus.open_mailbox(me, self._handler(me, "quick"), int)
        for name in list(self.durable):
            agent, _, pattern = name.partition("-")
            await self._durable(agent, pattern)
        for _ in range(40):
            await self.open.sleep.advance(5)
            if self._arrived():
                break
        await settled(self._arrived)

    def _arrived(self):
        return self._heard() and all(set(self.finished[me]) >= set(self.sent[me]) for me in RECEIVERS)

    def check(self):
        for me in RECEIVERS:
            for sender in SENDERS:
                wanted = [number for who, number in self.sent[me] if who == sender]
                got = [number for who, number in self.finished[me] if who == sender]
                assert list(dict.fromkeys(got)) == wanted, "lost, invented, or out of order"
                assert len(got) == len(wanted), "given again though its receiver had finished"
        for pattern, wanted, got, _ in self.durable.values():
            assert got == wanted, pattern


async def run(ops):
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        await world.start()
        try:
            for op in ops:
                await world.step(*op)
            await settled(world._heard)
            for pattern, wanted, got, _ in world.listeners:
                assert got == wanted, pattern
            await world.heal()
            world.check()
        finally:
            await world.stop()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(OPS, min_size=5, max_size=40))
def test_delivery_is_as_the_model_says(ops):
    anyio.run(run, ops)


def test_the_model_tells_a_loss():
    """A message that the outbox forgets is missed."""

    async def forgetful():
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder))
            await world.start()
            try:
                await world.step("send", "a", "b")
                await world.step("send", "a", "b")
                store, log = world.open.gate.store, world.open.gate.log
                await log.transact(lambda: (store._write("DELETE FROM bus_outbox WHERE position = ?", (1,)), ()))
                await world.step("open", "b", "quick")
                await settled(lambda: world.finished["b"])
                with pytest.raises(AssertionError, match="lost"):
                    world.check()
            finally:
                await world.stop()

    anyio.run(forgetful)
