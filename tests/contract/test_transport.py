"""The port of transports on every transport there is."""

import pytest

from symbi.adapters.inproc import InprocTransport
from symbi.adapters.sqlite import SqliteStore
from symbi.audit.log import AuditLog
from symbi.bus.parcels import ConsumerTerms, Overflow, Parcel
from symbi.clock import IdSource
from symbi.errors import StoreUnavailable
from symbi.testing.clock import ManualClock
from symbi.testing.contracts_transport import TRANSPORT_CHECKS, Woken, names, numbered, parcels
from symbi.testing.trail import fixed_signing_key

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture(params=["memory", "disk"])
async def transport(request, tmp_path, clock):
    if request.param == "memory":
        yield InprocTransport(clock)
        return
    with SqliteStore(tmp_path) as store:
        async with AuditLog(store, fixed_signing_key(), clock, IdSource(clock)) as log:
            yield InprocTransport(clock, (log, store))


@pytest.mark.parametrize("check", TRANSPORT_CHECKS, ids=lambda check: check.__name__)
async def test_the_contract(check, transport, clock):
    await check(transport, clock)


async def test_a_stream_outlives_its_process(tmp_path, clock):
    async def opened(store, log):
        transport = InprocTransport(clock, (log, store))
        await transport.open()
        return await transport.consume("t.>", ConsumerTerms(durable="d"), Woken()), transport

    with SqliteStore(tmp_path) as store:
        async with AuditLog(store, fixed_signing_key(), clock, IdSource(clock)) as log:
            consumer, transport = await opened(store, log)
            await transport.publish("t.a", parcels(1, 4))
            taken = consumer.take(4)
            await consumer.acknowledge([taken[0].position, taken[2].position])
    with SqliteStore(tmp_path) as store:
        async with AuditLog(store, fixed_signing_key(), clock, IdSource(clock)) as log:
            consumer, transport = await opened(store, log)
            await transport.publish("t.a", parcels(4, 5))  # the fourth is there already
            assert names(consumer) == numbered(2, 5)


async def test_the_stream_is_bounded_and_lets_the_oldest_go(tmp_path, clock):
    with SqliteStore(tmp_path) as store:
        async with AuditLog(store, fixed_signing_key(), clock, IdSource(clock)) as log:
            transport = InprocTransport(clock, (log, store), most_kept=10)
            consumer = await transport.consume("t.a", ConsumerTerms(durable="d"), Woken())
            for number in range(1, 26):
                await transport.publish("t.a", parcels(number, number))
            assert names(consumer) == numbered(16, 25)
            assert [row.position for row in await log.read(lambda: store.stream_rows(0, 100))] == list(range(16, 26))


async def test_the_stream_is_bounded_in_bytes_too_also_after_a_restart(tmp_path, clock):
    for number in range(1, 26, 5):
        with SqliteStore(tmp_path) as store:
            async with AuditLog(store, fixed_signing_key(), clock, IdSource(clock)) as log:
                transport = InprocTransport(clock, (log, store), most_bytes=1000)
                await transport.open()
                consumer = await transport.consume("t.a", ConsumerTerms(durable="d"), Woken())
                for one in range(number, number + 5):
                    await transport.publish("t.a", parcels(one, one, size=100))
                last = number + 4
                assert names(consumer) == numbered(max(1, last - 9), last)
                rows = await log.read(lambda: store.stream_rows(0, 100))
                assert [row.message_id for row in rows] == numbered(max(1, last - 9), last)
                assert sum(len(row.data) for row in transport._stream) <= 1000


async def test_what_the_store_does_not_keep_nobody_gets(clock):
    with SqliteStore(None) as store:
        async with AuditLog(store, fixed_signing_key(), clock, IdSource(clock)) as log:
            transport = InprocTransport(clock, (log, store))
            durable = await transport.consume("t.a", ConsumerTerms(durable="d"), Woken())
            other = await transport.consume("t.a", ConsumerTerms(overflow=Overflow.OLDEST), Woken())
            await transport.publish("t.a", parcels(1, 1))
            append, store.append_stream = (
                store.append_stream,
                lambda _rows: (_ for _ in ()).throw(StoreUnavailable("no")),
            )
            with pytest.raises(StoreUnavailable):
                await transport.publish("t.a", parcels(2, 2))
            store.append_stream = append
            await transport.publish("t.a", [Parcel("m3", b"x")])
            assert names(durable) == ["m1", "m3"]
            assert names(other) == ["m1", "m3"]
