"""A cross-encoder by sentence-transformers: a module with its interface stands in, and, where PyTorch is, a small real model."""

import importlib
import importlib.util
import json
import sys
import threading
import types

import numpy as np
import pytest

from symbi.adapters.transformer import MAX_PAIR_CHARACTERS, PAIRS, TransformerCrossEncoder
from symbi.errors import ConfigError, PermitRefused, Unavailable
from symbi.testing.contracts_vectors import open_permits

pytestmark = pytest.mark.anyio


@pytest.fixture
def permits():
    return open_permits()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


class Model:
    """Gives the number that a text says."""

    num_labels = 1

    def __init__(self, path, *, local_files_only):
        assert local_files_only
        self.asked = []
        self.threads = set()
        self.between = lambda: None

    def predict(self, pairs, *, batch_size, show_progress_bar, activation_fn):
        assert not show_progress_bar
        assert activation_fn == "plain"
        self.asked.append(pairs)
        self.threads.add(threading.current_thread())
        self.between()
        return np.array([float(text or 0) for _, text in pairs], np.float32)


@pytest.fixture
def installed(monkeypatch):
    module, torch = types.ModuleType("sentence_transformers"), types.ModuleType("torch")
    module.CrossEncoder = type("CrossEncoder", (Model,), {})
    torch.nn = types.SimpleNamespace(Identity=lambda: "plain")
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    monkeypatch.setitem(sys.modules, "torch", torch)
    return module


async def test_scores_are_in_order_from_0_to_1_and_made_elsewhere_than_on_the_event_loop(permits, folder, installed):
    encoder = await TransformerCrossEncoder.open(permits.authority, folder)
    scores = await encoder.scores(permits.read(), "how", ["0", "-1000", "1000", "1", "-1"])
    assert scores == pytest.approx([0.5, 0, 1, 0.731058, 0.268941], abs=1e-5)
    assert threading.current_thread() not in encoder._loaded.threads
    assert await encoder.scores(permits.read(), "how", []) == []


async def test_what_it_reads_is_bounded(permits, folder, installed):
    encoder = await TransformerCrossEncoder.open(permits.authority, folder)
    asked, said = MAX_PAIR_CHARACTERS
    texts = ["1"] * (2 * PAIRS) + ["0" * 1_000_000]
    assert len(await encoder.scores(permits.read(), "\ud800" * 1_000_000, texts)) == len(texts)
    assert [len(pairs) for pairs in encoder._loaded.asked] == [PAIRS, PAIRS, 1]
    ((question, text),) = encoder._loaded.asked[-1]
    assert (question, len(text)) == ("?" * asked, said)


async def test_a_permit_that_is_revoked_between_two_slices_stops_the_rest(permits, folder, installed):
    encoder = await TransformerCrossEncoder.open(permits.authority, folder)
    read = permits.read()
    encoder._loaded.between = lambda: permits.authority.close(read)
    with pytest.raises(PermitRefused):
        await encoder.scores(read, "how", ["1"] * (3 * PAIRS))
    assert len(encoder._loaded.asked) == 1
    with pytest.raises(PermitRefused):
        await encoder.scores(read, "how", ["1"])
    assert len(encoder._loaded.asked) == 1


@pytest.mark.parametrize("made", [[1.0], [float("nan")] * 2, [[1.0, 2.0]] * 2])
async def test_what_are_no_scores_is_refused(permits, folder, installed, made):
    encoder = await TransformerCrossEncoder.open(permits.authority, folder)
    encoder._loaded.predict = lambda *_, **__: np.array(made)
    with pytest.raises(Unavailable, match="no scores"):
        await encoder.scores(permits.read(), "how", ["1", "2"])


async def test_what_is_missing_or_does_not_rank_is_said(permits, folder, tmp_path, installed, monkeypatch):
    with pytest.raises(ConfigError, match="no model in"):
        await TransformerCrossEncoder.open(permits.authority, tmp_path / "nothing")
    installed.CrossEncoder.num_labels = 3
    with pytest.raises(ConfigError, match="gives 3 numbers"):
        await TransformerCrossEncoder.open(permits.authority, folder)

    def broken(*_, **__):
        raise OSError("no weights")

    installed.CrossEncoder = broken
    with pytest.raises(ConfigError, match="cannot be read: OSError: no weights"):
        await TransformerCrossEncoder.open(permits.authority, folder)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(Unavailable, match=r"not installed.*pip install 'symbi\[sentence-transformers\]'"):
        await TransformerCrossEncoder.open(permits.authority, folder)


def tiny_model(folder):
    """A BERT of two layers with weights by chance, and a vocabulary of letters."""
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    torch.manual_seed(7)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words))
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, num_labels=1,
    )  # fmt: skip
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64})
    )


REAL = importlib.util.find_spec("torch") and importlib.util.find_spec("sentence_transformers")


@pytest.mark.skipif(not REAL, reason="the extra sentence-transformers is not installed")
async def test_a_real_model_reads_question_and_text_together(permits, tmp_path):
    tiny_model(tmp_path)
    encoder = await TransformerCrossEncoder.open(permits.authority, tmp_path)
    texts = ["disk", "mail queue", "", "word " * 10_000, "disk"]
    read = permits.read()
    first = await encoder.scores(read, "a full disk", texts)
    assert len(first) == len(texts)
    assert all(0 < one < 1 for one in first)
    assert first[0] == pytest.approx(first[4], abs=1e-6)
    assert len({round(one, 6) for one in first}) > 1
    assert await encoder.scores(read, "a full disk", texts) == pytest.approx(first, abs=1e-6)
    assert await encoder.scores(read, "mail", texts) != pytest.approx(first, abs=1e-6)
    other = await encoder.scores(read, "a full disk", texts[1:])
    assert other == pytest.approx(first[1:], abs=1e-5)


@pytest.mark.skipif(not REAL, reason="the extra sentence-transformers is not installed")
async def test_a_real_model_with_three_labels_is_refused(permits, tmp_path):
    tiny_model(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError):
        await TransformerCrossEncoder.open(permits.authority, tmp_path)
