#!/usr/bin/env python3
"""Makes `src/symbi/tools/confusables.json`: which characters look like printable ASCII.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install confusable-homoglyphs==3.3.1
    /tmp/venv/bin/python tools/confusables.py

The package (MIT) carries Unicode's `confusables.txt` (UTS #39; Unicode licence) as pairs. What is joined by pairs looks
alike; each character that is so joined with printable ASCII is written down with the prototype of UTS #39, e.g. `rn`
for `m`. A prototype is that of its own characters, so that a table look-up for each character is the whole skeleton.
"""

import json
import unicodedata
from importlib.resources import files
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src" / "symbi" / "tools" / "confusables.json"
PREFERRED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def is_ascii(text: str) -> bool:
    """Printable ASCII without spaces."""
    return all("!" <= c <= "~" for c in text)


def main() -> None:
    """Write the table."""
    pairs = json.loads(files("confusable_homoglyphs").joinpath("confusables.json").read_text("utf-8"))
    parent: dict[str, str] = {}

    def find(one: str) -> str:
        while parent.setdefault(one, one) != one:
            one = parent[one]
        return one

    for one, others in pairs.items():
        for other in others:
            parent[find(one)] = find(other["c"])
    groups: dict[str, set[str]] = {}
    for one in list(parent):
        groups.setdefault(find(one), set()).add(one)
    prototypes: dict[str, str] = {}
    for group in groups.values():
        known = sorted(
            (one for one in group if is_ascii(one)), key=lambda one: (-len(one), PREFERRED.find(one) % 99, one)
        )
        if known:
            prototypes |= {one: known[0] for one in group if len(one) == 1 and one != known[0]}

    def whole(text: str) -> str:
        for _ in range(8):
            text = "".join(prototypes.get(c, c) for c in text)
        return text

    table = {one: whole(one) for one in sorted(prototypes)}
    # What decomposes to something in the table needs no row of its own.
    table = {one: to for one, to in table.items() if unicodedata.normalize("NFD", one) == one}
    TARGET.write_text(json.dumps(table, indent=0, sort_keys=True) + "\n", encoding="ascii")
    print(f"{len(table)} characters in {TARGET}")


if __name__ == "__main__":
    main()
