"""What runs inside a container, its beginning: the text of `python -c`, whose further arguments are the other modules.

They come as pairs of name and text, and are modules like any others: an import reads the text in place of a file. The
last step of it is `main`.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Dict, List, Optional


class Texts:
    """Finds and loads modules whose texts are at hand; a text is None for a package with nothing in it.

    Args:
        texts: By full name; each is let go as it is loaded.
    """

    def __init__(self, texts: Dict[str, Optional[str]]) -> None:
        self.texts = texts

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> Optional[ModuleSpec]:
        """The module, if its text is here."""
        if name not in self.texts:
            return None
        return ModuleSpec(name, self, is_package=self.texts[name] is None)  # type: ignore[arg-type]  # a loader by shape

    def create_module(self, _spec: ModuleSpec) -> Optional[ModuleType]:
        """As usual."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the text."""
        text = self.texts.pop(module.__name__)
        if text is not None:
            exec(compile(text, "<%s>" % module.__name__, "exec"), module.__dict__)


def install(pairs: List[str]) -> None:
    """Make modules of pairs of name and text."""
    texts: Dict[str, Optional[str]] = {pairs[n]: pairs[n + 1] for n in range(0, len(pairs), 2)}
    for name in list(texts):
        above = name.split(".")[:-1]
        texts.update({".".join(above[: n + 1]): None for n in range(len(above))})
    sys.meta_path.insert(0, Texts(texts))


if __name__ == "__main__":
    install(sys.argv[1:])
    del sys.argv[1:]
    from symbi.sandbox.inside.main import main

    main()
