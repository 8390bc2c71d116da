"""The tour of the README: every command is run, in order, in an empty folder, and shows what the README shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCK = re.compile(r"^```(?:console|\w+ write=(?P<file>\S+))\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
DONE = "\x1e"  # parts the outputs of one shell; not a character that a command prints
TOUR_TIMEOUT_S = 280  # bounds the whole tour


def steps(text):
    """(command, lines shown below it), for every `$ ` line of the console blocks and every block to be saved as a file."""
    found = []
    for block in BLOCK.finditer(text):
        if block["file"]:
            found.append((f"cat > {block['file']} <<'END OF FILE'\n{block['body']}END OF FILE", []))
            continue
        for line in block["body"].splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def shown(expected, output):
    """Whether the lines stand in the output in this order; `…` stands for anything within a line, or for any lines."""
    rest = iter(output.splitlines())
    for line in expected:
        if line.strip() in ("", "…"):
            continue
        pattern = ".*".join(re.escape(part.strip()) for part in line.split("…"))
        if not any(re.search(pattern, candidate) for candidate in rest):
            return line
    return None


@pytest.mark.slow
def test_every_command_of_the_tour_runs_and_shows_what_the_readme_says(root, tmp_path):
    tour = steps((root / "README.md").read_text("utf-8"))
    assert tour, "the README has no console block"
    script = tmp_path / "tour.sh"
    script.write_text("".join(f"{command}\nprintf '{DONE}%s{DONE}\\n' $?\n" for command, _ in tour), "utf-8")
    environment = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "HOME": str(tmp_path / "home"),
        "LANG": "C.UTF-8",
        "COLUMNS": "160",
    }
    (tmp_path / "home").mkdir()
    (tmp_path / "empty").mkdir()
    done = subprocess.run(
        ["/bin/sh", str(script)],
        stdin=subprocess.DEVNULL,
        cwd=tmp_path / "empty",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TOUR_TIMEOUT_S,
        check=False,
    )
    parts = done.stdout.split(DONE)
    assert len(parts) == 2 * len(tour) + 1, done.stdout
    for (command, expected), output, status in zip(tour, parts[0::2], parts[1::2], strict=False):
        assert status == "0", f"`{command}` ended with {status}:\n{output}"
        assert shown(expected, output) is None, f"`{command}` does not show `{shown(expected, output)}`:\n{output}"


def test_the_two_commands_of_the_readme_are_verbs_of_the_makefile(root):
    text = (root / "README.md").read_text("utf-8")
    verbs = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    assert verbs >= {"demo", "test"}
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert verbs <= targets


def test_a_step_shows_its_lines_in_order():
    text = "```console\n$ symbi check a\nok …\n$ symbi x\n```\n```toml write=a.toml\nb = 1\n```\n```toml\nc = 1\n```\n"
    save = "cat > a.toml <<'END OF FILE'\nb = 1\nEND OF FILE"
    assert steps(text) == [("symbi check a", ["ok …"]), ("symbi x", []), (save, [])]
    assert shown(["a", "…", "c … e"], "a\nb\nc d e\n") is None
    assert shown(["c", "a"], "a\nc\n") == "a"
