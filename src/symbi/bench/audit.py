"""AUD-4: durable appends with group commit in both modes of signing; `symbi.bench.audit_verify` has the rest."""

import tempfile
from itertools import product
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import anyio

from symbi.audit.event import Signing
from symbi.bench.audit_verify import audit_verify
from symbi.bench.crypto import PROVIDERS
from symbi.bench.machine import describe_file_system
from symbi.bench.measure import Measurement, Scale, Target, latency, rate
from symbi.errors import InternalError
from symbi.testing.log import OpenLog, open_log
from symbi.testing.trail import sample_draft

APPENDERS: Final = (1, 16, 256)
EVENTS: Final = {1: 2_000, 16: 8_000, 256: 30_000}  # at full scale, by number of appenders

_TARGETS: Final = {
    ("openssl", Signing.EVENT): Target(12_000, at_least=True, note="ours, openssl"),
    ("libsodium", Signing.EVENT): Target(20_000, at_least=True, note="ours, libsodium"),
    ("openssl", Signing.BATCH): Target(60_000, at_least=True, note="ours"),
    ("libsodium", Signing.BATCH): Target(60_000, at_least=True, note="ours"),
}
_SIGNED: Final = {
    Signing.EVENT: ("signed each", "an Ed25519 signature on each event"),
    Signing.BATCH: ("signed by batch", "one Ed25519 signature on the checkpoint of each commit, none on events"),
}


async def audit(scale: Scale) -> list[Measurement]:
    """Appends at each number of appenders and verification, by provider."""
    rows = []
    for provider, signing in product(PROVIDERS, Signing):
        for appenders in scale.sizes(*APPENDERS):
            with tempfile.TemporaryDirectory(prefix="symbi-bench-") as folder:
                on = describe_file_system(Path(folder))
                async with open_log(Path(folder) / "data", provider=provider, signing=signing) as trail:
                    count = scale.of(EVENTS[appenders], least=appenders)
                    rows += await _append(trail, (provider, signing), appenders, count, on)
    return [*rows, *audit_verify(scale)]


async def _append(
    trail: OpenLog, signed: tuple[str, Signing], appenders: int, count: int, on: str
) -> list[Measurement]:
    samples: list[int] = []
    each = max(1, count // appenders)

    async def appender(start: int) -> None:
        for number in range(start, start + each):
            begun = perf_counter_ns()
            await trail.log.append(sample_draft(number))
            samples.append(perf_counter_ns() - begun)

    before = trail.log.sequence
    begun = perf_counter_ns()
    async with anyio.create_task_group() as tasks:
        for number in range(appenders):
            tasks.start_soon(appender, number * each)
    elapsed = perf_counter_ns() - begun
    if trail.log.sequence - before != len(samples):
        msg = f"{len(samples)} appends were acknowledged, but {trail.log.sequence - before} events are durable"
        raise InternalError(msg)
    method = (
        f"SQLite, WAL, synchronous=FULL, on {on}; {_SIGNED[signed[1]][1]}; a Merkle tree and an index over all events;"
        " each appender is a task that waits until its event is durable before it appends the next"
    )
    who = f"{appenders} appender{'s' if appenders > 1 else ''}, {_SIGNED[signed[1]][0]}, {signed[0]}"
    target = _TARGETS[signed] if appenders == max(APPENDERS) else None
    return [
        rate("AUD-4", f"durable appends, {who}", len(samples), elapsed, unit="events/s", target=target, method=method),
        latency("AUD-4", f"latency of a durable append, {who}", samples, unit="ms", target=None, method=method),
    ]
