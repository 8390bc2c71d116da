"""The log of one session in docs/guides/mcp-gateway.md: a stock client, and the gateway of examples/mcp-gateway.

python tools/gateway_guide.py            say whether a new session is as it is logged; status 1 if it is not
python tools/gateway_guide.py --write    log a new one
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
EXAMPLE: Final = ROOT / "examples" / "mcp-gateway"
GUIDE: Final = ROOT / "docs" / "guides" / "mcp-gateway.md"
BLOCK: Final = re.compile(r"(<!-- session -->\n```text\n).*?(```\n)", re.DOTALL)
UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
VERSION: Final = re.compile(r'("name": "mcp", "version": )"[^"]*"')
LONGEST: Final = 600  # of a line; what is longer is cut, and says so
TIMEOUT_S: Final = 100.0


def session() -> str:
    """A new session, as it is logged: ids by number, long lines cut."""
    with tempfile.TemporaryDirectory(prefix="symbi-guide-") as name:
        folder = Path(name) / "gateway"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".symbi", "__pycache__"))
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        done = subprocess.run(
            [sys.executable, "session.py"], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            env={"PATH": path, "HOME": name, "LANG": "C.UTF-8"},
        )  # fmt: skip
    if done.returncode:
        sys.exit(f"the session failed: {done.stderr}")
    ids: dict[str, str] = {}
    text = UUID.sub(lambda found: ids.setdefault(found[0], f"EFFECT-{len(ids) + 1}"), done.stdout)
    text = VERSION.sub(r'\1"…"', text)
    return "".join(f"{line[:LONGEST]} …\n" if len(line) > LONGEST else f"{line}\n" for line in text.splitlines())


def logged() -> str:
    """The session as it stands in the guide."""
    found = BLOCK.search(GUIDE.read_text("utf-8"))
    return "" if found is None else found[0].removeprefix(found[1]).removesuffix(found[2])


def main() -> None:
    """Do what is asked."""
    new = session()
    if sys.argv[1:] == ["--write"]:
        GUIDE.write_text(BLOCK.sub(lambda found: found[1] + new + found[2], GUIDE.read_text("utf-8")), "utf-8")
        return
    if new != logged():
        sys.exit(f"a session is not as {GUIDE.relative_to(ROOT)} logs it:\n{new}")


if __name__ == "__main__":
    main()
