"""KNOW-6: how many texts the built-in model turns into vectors."""

from time import perf_counter_ns
from typing import Final

from symbi.bench.measure import Measurement, Scale, rate, single
from symbi.testing.contracts_vectors import open_permits
from symbi.testing.edge import static_embedder

TEXTS: Final = 20_000
_WORDS: Final = [
    "service",
    "disk",
    "full",
    "restart",
    "failed",
    "timeout",
    "network",
    "packet",
    "kernel",
    "memory",
    "log",
    "error",
    "request",
    "user",
    "key",
    "policy",
    "agent",
    "message",
    "queue",
    "server",
    "client",
    "certificate",
    "expired",
    "backup",
    "restore",
    "index",
    "vector",
    "document",
    "chapter",
    "page",
    "line",
]


async def embedding(scale: Scale) -> list[Measurement]:
    """Reading the model, sentences, and passages as documents are cut into."""
    permits, count = open_permits(), scale.of(TEXTS, least=100)
    embedder, permit = static_embedder(permits), permits.write()
    begun = perf_counter_ns()
    await embedder.embed(permit, ["first"], "query")
    rows = [
        single(
            "KNOW-6", "the built-in model is read", (perf_counter_ns() - begun) / 1e9, unit="s", n=1, target=None,
            method="checked by its digest, read and asked once, at the first use in a process",
        )
    ]  # fmt: skip
    for name, words, texts in (
        ("sentences of 12 words", 12, count),
        ("passages of 200 words", 200, max(1, count // 10)),
    ):
        said = [" ".join(_WORDS[(at * 7 + word * 5) % len(_WORDS)] for word in range(words)) for at in range(texts)]
        begun = perf_counter_ns()
        await embedder.embed(permit, said, "document")
        rows.append(
            rate(
                "KNOW-6", f"{name} into vectors", texts, perf_counter_ns() - begun, unit="texts/s", target=None,
                method="256 dimensions, on one thread beside the event loop",
            )
        )  # fmt: skip
    return rows
