"""Makes docs/assets/demo.svg: what `symbi demo` prints, as rich exports it.

Run: python tools/demo_picture.py
"""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from rich.terminal_theme import MONOKAI

from symbi.cli import demo, output

PICTURE = Path(__file__).parents[1] / "docs" / "assets" / "demo.svg"
WIDTH = 104


def main() -> None:
    """Run the demo on a recording console and write the picture."""
    place = Path(tempfile.gettempdir()) / "triage"
    shutil.rmtree(place, ignore_errors=True)
    output.out.record = True
    output.out.width = WIDTH
    output.out._color_system = 3  # type: ignore[assignment]  # noqa: SLF001 - true colour, although nothing is a terminal here
    output.out.print("[bold green]$[/] symbi demo triage")
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        demo.demo(place)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    svg = output.out.export_svg(title="symbi demo", theme=MONOKAI).replace(str(place), "triage")
    # The letters come from the reader's machine: a page must not fetch fonts from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    PICTURE.write_text("".join(line.rstrip() + "\n" for line in svg.splitlines()), encoding="utf-8")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
