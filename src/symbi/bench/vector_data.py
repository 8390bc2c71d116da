"""Vectors to measure with: clustered, of few real dimensions and some noise, as those of embedding models are.

A vector is drawn in 64 dimensions around one of 1,000 centres, turned into 1,536 by a fixed matrix, given noise in all
of them, and made of unit length. Blocks are made one by one, each from its own seed, so that a million never lie in
memory at once, and exact search goes over the same blocks again.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

DIMENSION: Final = 1_536
BLOCK: Final = 10_000
_LATENT: Final = 64
_CENTRES: Final = 1_000
_SPREAD: Final = 0.5  # of a cluster, where centres are 1 apart from the origin in each latent dimension
_NOISE: Final = 0.1  # in every dimension, where the signal is 1
_SEED: Final = 20_261_126


def blocks(count: int, dimension: int = DIMENSION, *, skip: int = 0) -> Iterator[NDArray[np.float32]]:
    """So many vectors, in blocks of `BLOCK` at most, without the first blocks."""
    for number, first in enumerate(range(0, count, BLOCK)):
        if number >= skip:
            yield _draw(number, min(BLOCK, count - first), dimension)


def queries(count: int, dimension: int = DIMENSION) -> NDArray[np.float32]:
    """Vectors of the same kind that are in no block."""
    return _draw(10**6, count, dimension)


def exact(
    count: int, wanted: NDArray[np.float32], k: int, keep: Sequence[int], dimension: int = DIMENSION
) -> dict[int, NDArray[np.int64]]:
    """Numbers of the `k` nearest of each wanted vector, by comparing it with all.

    Args:
        count: How many vectors there are.
        wanted: Queries, one in each row.
        k: So many.
        keep: Only vectors whose number, of each 100, is below this; once for each of these.
        dimension: Of the vectors.
    """
    scores = {one: np.full((len(wanted), k), -np.inf, np.float32) for one in keep}
    found = {one: np.zeros((len(wanted), k), np.int64) for one in keep}
    for number, block in enumerate(blocks(count, dimension)):
        names = np.arange(number * BLOCK, number * BLOCK + len(block))
        near = wanted @ block.T
        for one in keep:
            kept = names % 100 < one
            here = np.concatenate([scores[one], near[:, kept]], axis=1)
            told = np.concatenate([found[one], np.broadcast_to(names[kept], (len(wanted), int(kept.sum())))], axis=1)
            best = np.argpartition(-here, k - 1, axis=1)[:, :k]
            scores[one], found[one] = np.take_along_axis(here, best, 1), np.take_along_axis(told, best, 1)
    return found


def _draw(number: int, count: int, dimension: int) -> NDArray[np.float32]:
    fixed = np.random.default_rng(_SEED)
    centres = fixed.standard_normal((_CENTRES, _LATENT), np.float32)
    turn = fixed.standard_normal((_LATENT, dimension), np.float32) / np.float32(np.sqrt(_LATENT))
    rng = np.random.default_rng((_SEED, number))
    latent = centres[rng.integers(0, _CENTRES, count)]
    latent = latent + np.float32(_SPREAD) * rng.standard_normal((count, _LATENT), np.float32)
    rows = latent @ turn + np.float32(_NOISE) * rng.standard_normal((count, dimension), np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
