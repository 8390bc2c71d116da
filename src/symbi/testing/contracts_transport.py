"""The checks of the port of transports, to be run on every one of them."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Final, TypeAlias

from symbi.bus.parcels import ConsumerTerms, Overflow, Parcel
from symbi.bus.port import Consumer, Transport
from symbi.errors import InputError, Overloaded
from symbi.testing.clock import ManualClock

MANY: Final = 10_000


def parcels(first: int, last: int, size: int = 1) -> list[Parcel]:
    """Messages that are named by their numbers."""
    return [Parcel(f"m{number}", bytes([number % 256]) * size) for number in range(first, last + 1)]


def names(consumer: Consumer, most: int = MANY) -> list[str]:
    """What a consumer takes."""
    return [one.parcel.message_id for one in consumer.take(most)]


def numbered(first: int, last: int) -> list[str]:
    """The names of messages."""
    return [f"m{number}" for number in range(first, last + 1)]


class Woken:
    """Counts how often somebody is told to come."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        """Be told."""
        self.times += 1


async def check_transport_each_gets_what_fits_in_order(transport: Transport, _clock: ManualClock) -> None:
    """A word, one word, all that is left; each once, however it fits; and the subject stands with each message."""
    filters = ["t.a.b", "t.*.b", "t.>", "t.a.c", "t.a", "u.>"]
    found = [await transport.consume(one, ConsumerTerms(), Woken()) for one in filters]
    assert await transport.publish("t.a.b", parcels(1, 3)) == 3  # noqa: PLR2004 - the first three of them
    assert [names(one) for one in found] == [numbered(1, 3)] * 3 + [[]] * 3
    await transport.publish("t.a.b", parcels(4, 4))
    assert [one.subject for one in found[2].take(MANY)] == ["t.a.b"]


async def check_transport_says_what_it_keeps(transport: Transport, _clock: ManualClock) -> None:
    """What a durable consumer may ask for, open or away; not what only those hear who are there."""
    await transport.consume("t.>", ConsumerTerms(), Woken())
    assert not transport.keeps("t.a")
    durable = await transport.consume("t.a", ConsumerTerms(durable="d"), Woken())
    assert (transport.keeps("t.a"), transport.keeps("t.b")) == (True, False)
    await durable.close()
    assert transport.keeps("t.a")
    await transport.forget("d")
    assert not transport.keeps("t.a")


async def check_transport_bytes_arrive_as_they_were(transport: Transport, _clock: ManualClock) -> None:
    """All values, none and many."""
    consumer = await transport.consume("t.a", ConsumerTerms(), Woken())
    sent = [b"", bytes(range(256)), b"\0" * 65_536]
    await transport.publish("t.a", [Parcel(str(at), data) for at, data in enumerate(sent)])
    assert [one.parcel.data for one in consumer.take(MANY)] == sent


async def check_transport_who_sleeps_is_woken_once(transport: Transport, _clock: ManualClock) -> None:
    """There is something after there was nothing: one call, and another one after all was taken."""
    woken = Woken()
    consumer = await transport.consume("t.a", ConsumerTerms(), woken)
    assert woken.times == 0
    await transport.publish("t.a", parcels(1, 2))
    await transport.publish("t.a", parcels(3, 3))
    assert woken.times == 1
    assert names(consumer) == numbered(1, 3)
    await transport.publish("t.a", parcels(4, 4))
    assert woken.times == 2  # noqa: PLR2004 - once more


async def check_transport_a_full_buffer_drops_the_oldest(transport: Transport, _clock: ManualClock) -> None:
    """As declared; it is counted, and whoever sends is not told."""
    consumer = await transport.consume("t.a", ConsumerTerms(most=3, overflow=Overflow.OLDEST), Woken())
    await transport.publish("t.a", parcels(1, 5))
    assert consumer.standing() == (3, 2)
    assert names(consumer) == numbered(3, 5)


async def check_transport_a_full_buffer_drops_the_newest(transport: Transport, _clock: ManualClock) -> None:
    """As declared."""
    consumer = await transport.consume("t.a", ConsumerTerms(most=3, overflow=Overflow.NEWEST), Woken())
    await transport.publish("t.a", parcels(1, 5))
    assert consumer.standing() == (3, 2)
    assert names(consumer) == numbered(1, 3)


async def check_transport_a_full_buffer_refuses(transport: Transport, _clock: ManualClock) -> None:
    """As declared: whoever sends is told when to come again, and nobody gets any of it; room that was made counts."""
    full = await transport.consume("t.a", ConsumerTerms(most=3, overflow=Overflow.REFUSE), Woken())
    other = await transport.consume("t.a", ConsumerTerms(), Woken())
    await transport.publish("t.a", parcels(1, 2))
    refused: list[float] = []
    try:
        await transport.publish("t.a", parcels(3, 4))
    except Overloaded as overload:
        refused.append(overload.retry_after_s)
    assert [after_s > 0 for after_s in refused] == [True]
    assert names(other) == names(full) == numbered(1, 2)
    await transport.publish("t.a", parcels(3, 5))
    assert names(other) == names(full) == numbered(3, 5)


async def check_transport_bytes_are_bounded_too(transport: Transport, _clock: ManualClock) -> None:
    """Few large messages fill a buffer as many small ones do."""
    consumer = await transport.consume("t.a", ConsumerTerms(most_bytes=2500), Woken())
    await transport.publish("t.a", parcels(1, 4, size=1000))
    assert names(consumer) == numbered(3, 4)
    await transport.publish("t.a", parcels(5, 5, size=2501))
    assert names(consumer) == []


async def check_transport_a_slow_one_slows_nobody(transport: Transport, _clock: ManualClock) -> None:
    """Whoever takes nothing keeps nothing from the others, and holds no more than its buffer."""
    slow = await transport.consume("t.>", ConsumerTerms(most=10), Woken())
    quick = await transport.consume("t.>", ConsumerTerms(most=10), Woken())
    got: list[str] = []
    for first in range(1, 1001, 10):
        await transport.publish("t.a", parcels(first, first + 9))
        got += names(quick)
    assert got == numbered(1, 1000)
    assert slow.standing() == (10, 990)


async def check_transport_who_has_left_gets_nothing(transport: Transport, _clock: ManualClock) -> None:
    """Also what waited for it."""
    consumer = await transport.consume("t.a", ConsumerTerms(), Woken())
    await transport.publish("t.a", parcels(1, 1))
    await consumer.close()
    assert await transport.publish("t.a", parcels(2, 2)) == 0
    assert names(consumer) == []


async def check_transport_a_durable_one_goes_on_where_it_was(transport: Transport, _clock: ManualClock) -> None:
    """What came while it was away, and what it took and did not acknowledge; nothing that it did acknowledge."""
    terms = ConsumerTerms(durable="d")
    consumer = await transport.consume("t.>", terms, Woken())
    await transport.publish("t.a", parcels(1, 3))
    taken = consumer.take(MANY)
    assert [one.position for one in taken] == sorted(one.position for one in taken)
    assert min(one.position for one in taken) >= 1
    await consumer.acknowledge([taken[0].position])
    await consumer.close()
    await transport.publish("t.b", parcels(4, 4))
    await transport.publish("u.b", parcels(5, 5))
    woken = Woken()
    again = await transport.consume("t.>", terms, woken)
    assert woken.times == 1
    assert names(again) == numbered(2, 4)


async def check_transport_what_was_taken_is_acknowledged_late(transport: Transport, _clock: ManualClock) -> None:
    """After it was closed too; nothing else counts as acknowledged by that."""
    terms = ConsumerTerms(durable="d")
    consumer = await transport.consume("t.>", terms, Woken())
    await transport.publish("t.a", parcels(1, 3))
    taken = consumer.take(MANY)
    await consumer.close()
    await consumer.acknowledge([taken[0].position])
    again = await transport.consume("t.>", terms, Woken())
    assert names(again) == numbered(2, 3)


async def check_transport_what_is_not_acknowledged_comes_again(transport: Transport, clock: ManualClock) -> None:
    """After the time that was said, with the number of the attempt; sooner or later where it was refused so."""
    consumer = await transport.consume("t.>", ConsumerTerms(durable="d", again_s=30), Woken())
    await transport.publish("t.a", parcels(1, 2))
    first, second = consumer.take(MANY)
    assert consumer.take(MANY) == []
    await consumer.refuse(second.position, 5)
    clock.advance(6)
    assert [(one.parcel.message_id, one.attempt) for one in consumer.take(MANY)] == [("m2", 2)]
    clock.advance(30)
    assert [(one.parcel.message_id, one.attempt) for one in consumer.take(MANY)] == [("m1", 2), ("m2", 3)]
    await consumer.acknowledge([first.position, second.position])
    clock.advance(100)
    assert consumer.take(MANY) == []
    assert consumer.standing() == (0, 0)


async def check_transport_a_durable_one_is_replayed_from_a_position(transport: Transport, _clock: ManualClock) -> None:
    """Where it is new or opened again with one; without one, a new one gets what comes."""
    keeper = await transport.consume("t.>", ConsumerTerms(durable="keeper"), Woken())
    await transport.publish("t.a", parcels(1, 4))
    positions = [one.position for one in keeper.take(MANY)]
    late = await transport.consume("t.>", ConsumerTerms(durable="late", start=positions[2]), Woken())
    assert names(late) == numbered(3, 4)
    new = await transport.consume("t.>", ConsumerTerms(durable="new"), Woken())
    assert names(new) == []
    await late.acknowledge(positions)
    await late.close()
    again = await transport.consume("t.>", ConsumerTerms(durable="late", start=positions[1]), Woken())
    assert names(again) == numbered(2, 4)


async def check_transport_a_stream_takes_a_message_once(transport: Transport, _clock: ManualClock) -> None:
    """The same id, published again, is the same message."""
    consumer = await transport.consume("t.>", ConsumerTerms(durable="d"), Woken())
    await transport.publish("t.a", parcels(1, 2))
    await transport.publish("t.a", parcels(2, 3))
    assert names(consumer) == numbered(1, 3)


async def check_transport_what_is_unacknowledged_is_bounded(transport: Transport, _clock: ManualClock) -> None:
    """A durable one gets no more than it may hold, and the rest when it has acknowledged."""
    consumer = await transport.consume("t.>", ConsumerTerms(durable="d", most=2), Woken())
    await transport.publish("t.a", parcels(1, 5))
    first = consumer.take(MANY)
    assert [one.parcel.message_id for one in first] == numbered(1, 2)
    assert consumer.take(MANY) == []
    await consumer.acknowledge([one.position for one in first])
    assert names(consumer, 1) == numbered(3, 3)


async def check_transport_a_durable_name_is_one_consumer(transport: Transport, _clock: ManualClock) -> None:
    """It cannot be opened twice at a time, nor for another filter, until it is forgotten."""
    consumer = await transport.consume("t.>", ConsumerTerms(durable="d"), Woken())
    await _refused(transport, "t.>")
    await consumer.close()
    await _refused(transport, "t.a")
    await transport.publish("t.a", parcels(1, 1))
    await transport.forget("d")
    again = await transport.consume("t.a", ConsumerTerms(durable="d"), Woken())
    assert names(again) == []


async def _refused(transport: Transport, subject: str) -> None:
    codes: list[str] = []
    try:
        await transport.consume(subject, ConsumerTerms(durable="d"), Woken())
    except InputError as error:
        codes.append(error.code)
    assert codes == ["message.durable"]


async def check_transport_many_filters_cost_little(transport: Transport, _clock: ManualClock) -> None:
    """Each of many consumers gets its own, and nothing else."""
    found = [await transport.consume(f"to.a{number}", ConsumerTerms(), Woken()) for number in range(1000)]
    numbers = count(1)
    for number in range(1000):
        assert await transport.publish(f"to.a{number}", [Parcel(f"m{next(numbers)}", b"x")]) == 1
    assert [names(one) for one in found] == [[f"m{number}"] for number in range(1, 1001)]


Check: TypeAlias = Callable[[Transport, ManualClock], Awaitable[None]]

TRANSPORT_CHECKS: Final[Sequence[Check]] = (
    check_transport_each_gets_what_fits_in_order,
    check_transport_says_what_it_keeps,
    check_transport_bytes_arrive_as_they_were,
    check_transport_who_sleeps_is_woken_once,
    check_transport_a_full_buffer_drops_the_oldest,
    check_transport_a_full_buffer_drops_the_newest,
    check_transport_a_full_buffer_refuses,
    check_transport_bytes_are_bounded_too,
    check_transport_a_slow_one_slows_nobody,
    check_transport_who_has_left_gets_nothing,
    check_transport_a_durable_one_goes_on_where_it_was,
    check_transport_what_was_taken_is_acknowledged_late,
    check_transport_what_is_not_acknowledged_comes_again,
    check_transport_a_durable_one_is_replayed_from_a_position,
    check_transport_a_stream_takes_a_message_once,
    check_transport_what_is_unacknowledged_is_bounded,
    check_transport_a_durable_name_is_one_consumer,
    check_transport_many_filters_cost_little,
)
