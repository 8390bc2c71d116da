"""A folder with an agent, permissive policies and tool servers, for tests that give the command line something wrong."""

import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from symbi.adapters.sqlite import SqliteReader
from symbi.audit.event import AuditEvent, parse_event
from symbi.audit.verify import verify_trail
from symbi.cli.main import app
from symbi.config import load_settings
from symbi.wiring import verifying_keys

SERVERS = Path(__file__).parents[1] / "data" / "servers"
CONFIG = """\
[mcp]
tool_verification = "tofu"
connection_timeout_s = {start_s}
[limits]
tool_timeout_s = {call_s}
steps = {steps}
{more}
[mcp.servers.desk]
command = ["{{python}}", "{effects}"]
manifest = "desk.toml"
[mcp.servers.odd]
command = [{command}]
"""
MANIFEST = """\
[server]
name = "desk"
[tools.write]
recovery = "idempotent"
[tools.send]
recovery = "idempotent"
[tools.stat]
recovery = "read-only"
"""
POLICY = '@id("all")\npermit (principal, action, resource);\n'
AGENT = """\
agent work(text: String) -> String {{
    capabilities = ["odd.echo", "desk.stat", "desk.write", "desk.send", "python"]
    with sandbox = interpreter, timeout = {timeout_s}.seconds {{
        {first}
        tool("desk.write", name = "report.md", text = text);
        tool("desk.send", to = "oncall@example.com", text = text);
        "done"
    }}
}}
"""
ASK = 'tool("odd.echo", text = text);'


@dataclass(frozen=True)
class Said:
    """What a command said, and its exit code."""

    code: int
    stdout: str
    stderr: str

    def error(self, code: int, *words: str) -> str:
        """The one line that says what is wrong, with words of it or of its hint."""
        said = self.stdout + self.stderr
        assert self.code == code, said
        assert "Traceback" not in said
        assert "internal error" not in said
        (error,) = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        for word in words:
            assert word in said, said
        return error


@dataclass
class Workshop:
    """The folder. Its one agent does something first, and then has two effects, by tools that work."""

    folder: Path
    environ: dict[str, str]

    def write(self, first: str = "", mode: str = "good", *, timeout_s: int = 30, **changes: object) -> None:
        """The agent with something done first, and the configuration with a hostile server of some mode."""
        fields = {
            "start_s": 20.0, "call_s": 20.0, "steps": 100_000, "more": "", "effects": SERVERS / "effects.py",
            "command": f'"{{python}}", "{SERVERS / "hostile.py"}", "{mode}"',
        }  # fmt: skip
        self.put("work.symbi", AGENT.format(first=first, timeout_s=timeout_s))
        self.put("symbi.toml", CONFIG.format(**(fields | changes)))
        self.put("desk.toml", MANIFEST)
        self.put("policies/all.cedar", POLICY)

    def put(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")

    def symbi(self, *arguments: str, env: Mapping[str, str] = {}, largest_file: int | None = None) -> Said:
        """A command as a process of its own; as if the disk were full for files of more than so many bytes."""
        command = [sys.executable, "-m", "symbi.cli.main", *arguments]
        if largest_file is not None:
            command = ["/bin/sh", "-c", f'ulimit -f {largest_file // 512}; exec "$@"', "sh", *command]
        done = subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=100,
            env={**os.environ, **self.environ, **env}, check=False,
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def inside(self, *arguments: str) -> Said:
        """A command in this process, which is quicker."""
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            done = CliRunner().invoke(app, arguments, env=self.environ)
        finally:
            os.chdir(before)
        assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
        return Said(done.exit_code, done.stdout, done.stderr)

    def run(self, *more: str) -> Said:
        """The agent, as a process of its own."""
        return self.symbi("run", "work.symbi", "--input", "text=hello", *more)

    def run_inside(self) -> Said:
        """The agent, in this process."""
        return self.inside("run", "work.symbi", "--input", "text=hello")

    def trail(self) -> list[AuditEvent]:
        """The events, once they are verified; none where there is no trail yet."""
        settings = load_settings(self.folder / "symbi.toml", environ=self.environ)
        if not (settings.runtime.data_dir / "symbi.db").is_file():
            return []
        with SqliteReader(settings.runtime.data_dir) as reader:
            verify_trail(reader.read(1), reader.head_record(), verifying_keys(settings))
            return [parse_event(stored.record) for stored in reader.read(1)]

    def recorded(self, kind: str, *words: str) -> bool:
        """Whether the trail has an event of a type with these words in it."""
        return any(
            event.event_type == kind and all(word in json.dumps(event.details, ensure_ascii=False) for word in words)
            for event in self.trail()
        )

    def sent(self) -> list[str]:
        """What was sent, in order."""
        outbox = self.folder / "outbox.jsonl"
        return [json.loads(line)["text"] for line in outbox.read_text().splitlines()] if outbox.exists() else []

    def reports(self) -> dict[str, str]:
        """What was written."""
        return {path.name: path.read_text() for path in sorted(self.folder.glob("reports/*"))}

    def untouched(self) -> bool:
        """Whether no effect has happened."""
        return not self.sent() and not (self.folder / "reports").exists()

    def works(self) -> None:
        """Assert that nothing has happened so far, and that a good run in the same folder does it all."""
        assert self.untouched()
        self.write(ASK)
        done = self.run_inside()
        assert (done.code, done.stdout) == (0, "done\n"), done.stderr
        assert (self.sent(), self.reports()) == (["hello"], {"report.md": "hello"})
        assert self.recorded("run.finished", "finished")


@pytest.fixture
def workshop(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    made = Workshop(folder, {"SYMBI_LOG_LEVEL": "error"})
    made.write()
    return made


@pytest.fixture
def free_port():
    """One that the system gives to nobody who names none."""
    for port in random.sample(range(10_000, 30_000), 1_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    pytest.fail("no port is free")
