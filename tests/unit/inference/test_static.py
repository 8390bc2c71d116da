"""The embedding model that ships in the package."""

import hashlib
import shutil
import subprocess
import sys
import threading
from importlib.resources import files
from pathlib import Path

import anyio
import anyio.to_thread
import numpy as np
import pytest

from symbi.errors import PermitRefused, PinMismatch, Unavailable
from symbi.guard.permit import Permit
from symbi.inference.static import AT_ONCE, BUILTIN, MAX_CHARACTERS, MODEL_DIGEST, SLICE, StaticEmbedder, model_digest
from symbi.testing.contracts_vectors import open_permits
from symbi.types import EffectId

pytestmark = pytest.mark.anyio
PUBLISHED = [
    0.020323,
    -0.296721,
    0.178846,
    -0.036582,
    -0.097552,
    0.016259,
    -0.081293,
    -0.162587,
]  # the first of its 256 numbers
HOME = Path(str(files("symbi.inference").joinpath("minilm")))


@pytest.fixture
def permits():
    return open_permits()


async def test_the_vectors_are_those_that_were_published(permits):
    rows = await StaticEmbedder(permits.authority).embed(permits.read(), ["the disk is full"], "query")
    assert rows.shape == (1, 256)
    assert rows.dtype == np.float32
    assert np.allclose(rows[0, :8], PUBLISHED, atol=1e-5)


async def test_texts_that_mean_the_same_are_nearer_than_others(permits):
    texts = ["the disk is full", "no space left on the drive", "a dog barks at the cat", "puppies and kittens"]
    rows = await StaticEmbedder(permits.authority).embed(permits.read(), texts, "document")
    near = rows @ rows.T
    assert near[0, 1] > 3 * max(near[0, 2], near[0, 3])
    assert near[2, 3] > 3 * max(near[2, 0], near[2, 1])


async def test_a_text_has_one_vector_whatever_stands_beside_it(permits):
    embedder = StaticEmbedder(permits.authority)
    texts = [f"line {number} of the log " * (number % 5) for number in range(600)]
    together = await embedder.embed(permits.write(), texts, "document")
    for number in (0, 1, 257, 599):
        alone = await embedder.embed(permits.read(), [texts[number]], "query")
        assert (alone[0] == together[number]).all()


@pytest.mark.parametrize("text", ["", " \n\t", "\0", "\u200b", "x" * 1000])
async def test_a_text_with_nothing_in_it_is_near_to_nothing(permits, text):
    rows = await StaticEmbedder(permits.authority).embed(permits.read(), [text], "query")
    assert not rows.any()


async def test_odd_and_huge_texts_have_a_vector(permits):
    huge = "disk " * 4_000_000
    texts = ["\ud800 disk", "日本語", "🙂", huge, huge[:MAX_CHARACTERS], "a\0b\r\ndisk"]
    rows = await StaticEmbedder(permits.authority).embed(permits.read(), texts, "document")
    assert np.isfinite(rows).all()
    assert np.allclose(np.linalg.norm(rows[[0, 1, 3, 4, 5]], axis=1), 1, atol=1e-6)
    assert (rows[3] == rows[4]).all()  # what is beyond the bound is not looked at


async def test_no_texts_are_no_rows(permits):
    assert (await StaticEmbedder(permits.authority).embed(permits.read(), [], "query")).shape == (0, 256)


async def test_a_permit_that_is_not_live_has_nothing_read(permits):
    read = permits.read()
    permits.authority.close(read)
    embedder = StaticEmbedder(permits.authority)
    with pytest.raises(PermitRefused):
        await embedder.embed(read, ["x"], "query")
    with pytest.raises(PermitRefused):
        await embedder.embed(Permit(EffectId("f"), permits.read().action), ["x"], "query")


async def test_a_model_that_was_changed_is_refused(permits, tmp_path):
    shutil.copytree(HOME, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(PinMismatch):
        await StaticEmbedder(permits.authority, tmp_path / "model").embed(permits.read(), ["x"], "query")
    weights.unlink()
    with pytest.raises(Unavailable):
        await StaticEmbedder(permits.authority, tmp_path / "model").embed(permits.read(), ["x"], "query")


def test_the_model_is_small_and_the_digest_names_all_of_it():
    sizes = {one.name: one.stat().st_size for one in HOME.iterdir()}
    assert set(sizes) == {"NOTICE", "config.json", "model.safetensors", "tokenizer.json"}
    assert sum(sizes.values()) < 16_000_000
    assert model_digest(HOME) == MODEL_DIGEST == BUILTIN.digest
    by_hand = hashlib.sha256()
    for name in sorted(set(sizes) - {"NOTICE"}):
        by_hand.update(f"{name} {sizes[name]}\n".encode() + (HOME / name).read_bytes())
    assert by_hand.hexdigest() == MODEL_DIGEST
    assert "Apache License, Version 2.0" in (HOME / "NOTICE").read_text("utf-8")


def test_nothing_is_read_before_somebody_asks_and_nothing_is_fetched():
    code = """
import sys, socket
import anyio
from symbi.inference.static import StaticEmbedder
from symbi.testing.contracts_vectors import open_permits
permits = open_permits()
embedder = StaticEmbedder(permits.authority)
assert "model2vec" not in sys.modules and "torch" not in sys.modules
class Refused(socket.socket):
    def connect(self, *_): raise AssertionError("it wants a network")
socket.socket = Refused
async def main(): return await embedder.embed(permits.read(), ["x y"], "query")
assert anyio.run(main).any()
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code], check=False, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()


async def test_a_short_text_wakes_no_thread_once_the_model_is_read_and_its_vector_is_the_same(permits, monkeypatch):
    embedder = StaticEmbedder(permits.authority)
    threads = []
    rows_of = StaticEmbedder._rows

    def noted(self, texts):
        threads.append(threading.get_ident())
        return rows_of(self, texts)

    monkeypatch.setattr(StaticEmbedder, "_rows", noted)
    first = await embedder.embed(permits.read(), ["the disk is full"], "query")  # reads the model, too
    again = await embedder.embed(permits.read(), ["the disk is full"], "query")
    await embedder.embed(permits.read(), ["disk " * AT_ONCE], "query")
    await embedder.embed(permits.read(), ["disk"] * AT_ONCE, "query")
    await embedder.embed(permits.read(), [""] * (SLICE + 1), "query")
    assert (first == again).all()
    assert [one == threading.get_ident() for one in threads] == [False, True, *[False] * (len(threads) - 2)]


async def test_a_short_text_is_not_read_beside_others_that_a_thread_is_at(permits, monkeypatch):
    embedder = StaticEmbedder(permits.authority)
    await embedder.embed(permits.read(), ["disk"], "query")
    begun, go_on = threading.Event(), threading.Event()
    rows_of = StaticEmbedder._rows
    at_once = 0

    def held(self, texts):
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        if len(texts) > 1:
            begun.set()
            go_on.wait()
        at_once -= 1
        return rows_of(self, texts)

    monkeypatch.setattr(StaticEmbedder, "_rows", held)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(embedder.embed, permits.read(), ["disk " * AT_ONCE, "full"], "document")
        try:
            await anyio.to_thread.run_sync(begun.wait)
            tasks.start_soon(embedder.embed, permits.read(), ["disk"], "query")
            await anyio.wait_all_tasks_blocked()
        finally:
            go_on.set()
