"""CRY-1: what the cryptography of one event costs, by provider."""

from collections.abc import Callable
from typing import Final

from symbi.bench.measure import Measurement, Scale, latency, sample
from symbi.crypto.canonical import canonical_json
from symbi.crypto.provider import open_provider
from symbi.crypto.sealing import SealingKey
from symbi.crypto.signing import SigningKey
from symbi.testing.trail import build_trail, sample_draft

PROVIDERS: Final = ("openssl", "libsodium")

_BATCH: Final = 20  # operations in one sample, so that reading the clock does not count
_KEY: Final = bytes(range(32))


async def crypto(scale: Scale) -> list[Measurement]:
    """Canonical JSON, SHA-256, signature, verification, and sealing of 256 bytes."""
    count = scale.of(1_000, least=5)
    details = sample_draft(1).details
    record = build_trail(1).events[-1].record
    rows = [_row("canonical JSON of an event's details", lambda: canonical_json(details), count)]
    for name in PROVIDERS:
        rows += [_row(f"{metric}, {name}", operation, count) for metric, operation in _operations(name, record).items()]
    return rows


def _operations(name: str, record: bytes) -> dict[str, Callable[[], object]]:
    provider = open_provider(name)
    signing, sealing = SigningKey(_KEY, provider), SealingKey(_KEY, "bench", provider)
    verifying, signature = signing.verifying_key(), signing.sign("bench", record)
    plain, sealed = bytes(256), sealing.seal(bytes(256), b"bench")
    return {
        f"SHA-256 of an event of {len(record)} bytes": lambda: provider.sha256(record),
        "Ed25519 signature of an event": lambda: signing.sign("bench", record),
        "Ed25519 verification of an event": lambda: verifying.verify("bench", record, signature),
        "AES-256-GCM sealing of 256 bytes": lambda: sealing.seal(plain, b"bench"),
        "AES-256-GCM opening of 256 bytes": lambda: sealing.open(sealed, b"bench"),
    }


def _row(metric: str, operation: Callable[[], object], count: int) -> Measurement:
    def batch(_: int) -> None:
        for _ in range(_BATCH):
            operation()

    samples = [duration // _BATCH for duration in sample(batch, count, warm=3)]
    method = f"one core, one thread; means of {_BATCH} operations"
    return latency("CRY-1", metric, samples, unit="us", judged="p50", target=None, method=method)
