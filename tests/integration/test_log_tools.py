"""The example's tool servers: whole logs in chunks, paths that stay inside, each key applied once, and signatures."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from argparse import Namespace
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.adapters.mcp import StdioToolServer
from symbi.policy.catalog import ToolType
from symbi.policy.policies import PolicySet
from symbi.testing.gate import open_gate
from symbi.tools.catalog import Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.invoke import Invoker
from symbi.tools.manifest import parse_manifest
from symbi.tools.schemapin import load_public_key
from symbi.types import AgentId, Principal, RecoveryClass

EXAMPLE = Path(__file__).parents[2] / "examples" / "log-triage"
SCRIPT = EXAMPLE / "server" / "log_tools.py"
AGENT = Principal(AgentId("log_triage"))


def load():
    spec = importlib.util.spec_from_file_location("log_tools", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


log_tools = load()


# --- reading ------------------------------------------------------------------------------------------------------------


def read_all(root, path):
    info = log_tools.stat_log(root, path)
    return info, [log_tools.read_log(root, path, chunk) for chunk in range(info["chunks"])]


LINE = st.text(st.characters(codec="ascii", exclude_characters="\n"), max_size=60)


@settings(max_examples=300)
@given(st.lists(LINE, max_size=40), st.booleans(), st.integers(1, 40))
def test_chunks_are_whole_lines_and_together_the_whole_log(lines, ends, window):
    text = "\n".join(lines) + ("\n" if ends and lines else "")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_tools, "WINDOW_BYTES", window)
        patch.setattr(log_tools, "MAX_LINE_BYTES", 64)
        (Path(folder) / "log").write_text(text, newline="")
        info, chunks = read_all(Path(folder), "log")
    assert "".join(chunk["text"] for chunk in chunks) == text
    assert not any(chunk["cut"] for chunk in chunks)
    assert info["bytes"] == len(text)
    assert info["lines"] == text.count("\n") + (text != "" and not text.endswith("\n"))
    filled = [chunk["text"] for chunk in chunks if chunk["text"]]
    assert all(part.endswith("\n") for part in filled[:-1])


def test_a_line_without_end_is_cut_and_the_rest_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(log_tools, "WINDOW_BYTES", 10)
    monkeypatch.setattr(log_tools, "MAX_LINE_BYTES", 5)
    (tmp_path / "log").write_text("a\n" + "x" * 50 + "\nlast\n")
    _, chunks = read_all(tmp_path, "log")
    assert chunks[0] == {"text": "a\n" + "x" * 13, "chunk": 0, "chunks": 6, "cut": True}
    assert "".join(chunk["text"] for chunk in chunks[1:]) == "last\n"


def test_no_chunk_is_larger_than_promised_on_the_examples_log():
    log = str(EXAMPLE / "logs" / "access.log")
    info, chunks = read_all(Path(), log)
    assert "".join(chunk["text"] for chunk in chunks) == Path(log).read_text()
    assert info["lines"] == Path(log).read_bytes().count(b"\n")
    assert max(len(chunk["text"].encode()) for chunk in chunks) <= 256 * 1024
    with pytest.raises(log_tools.Refused, match="there is no chunk"):
        log_tools.read_log(Path(), log, info["chunks"])


def test_bytes_that_are_no_text_are_replaced(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\xfe ok\n")
    assert log_tools.read_log(tmp_path, "log", 0)["text"] == "\ufffd\ufffd ok\n"


def test_an_empty_log_has_one_empty_chunk(tmp_path):
    (tmp_path / "log").write_text("")
    assert read_all(tmp_path, "log") == (
        {"bytes": 0, "lines": 0, "chunks": 1},
        [{"text": "", "chunk": 0, "chunks": 1, "cut": False}],
    )


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "path",
    ["../outside", "in/../../outside", "link", "folder-link/outside", "..", ".", "", "in", "pipe", "a\0b", "none"],
)
def test_a_relative_path_stays_below_the_root_and_names_a_file(tmp_path, path):
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (tmp_path / "outside").write_text("secret")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "folder-link").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    for read in (lambda: log_tools.stat_log(root, path), lambda: log_tools.read_log(root, path, 0)):
        with pytest.raises(log_tools.Refused):
            read()


@pytest.mark.timeout(10)
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/", "/tmp", "/no/such/file"])
def test_an_absolute_path_names_a_regular_file(path):
    with pytest.raises(log_tools.Refused):
        log_tools.stat_log(Path(), path)


def test_an_absolute_path_may_lie_anywhere(tmp_path):
    (tmp_path / "log").write_text("line\n")
    assert log_tools.stat_log(Path("/no/such/root"), str(tmp_path / "log"))["lines"] == 1


# --- effects ------------------------------------------------------------------------------------------------------------


def test_each_key_is_applied_once(tmp_path):
    out, journal = tmp_path / "out", log_tools.Journal(tmp_path / "state", "reports.jsonl")
    for _ in range(3):
        result = log_tools.write_report(out, journal, "key-1", "a.md", "text")
    assert result == {
        "name": "a.md",
        "bytes": 4,
        "sha256": "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1",
    }
    (out / "a.md").write_text("edited by a person")
    log_tools.write_report(out, journal, "key-1", "a.md", "text")
    assert (out / "a.md").read_text() == "edited by a person"
    assert len(list(journal.lines())) == 1
    log_tools.write_report(out, journal, "key-2", "a.md", "text")
    assert (out / "a.md").read_text() == "text"
    assert [path.name for path in out.iterdir()] == ["a.md"]


def test_a_key_cannot_be_used_for_something_else_or_left_out(tmp_path):
    journal = log_tools.Journal(tmp_path, "outbox.jsonl")
    log_tools.send(journal, "key", {"to": "a", "subject": "s", "body": "b"})
    with pytest.raises(log_tools.Refused, match="other arguments"):
        log_tools.send(journal, "key", {"to": "evil", "subject": "s", "body": "b"})
    for key in (None, ""):
        with pytest.raises(log_tools.Refused, match="no idempotency key"):
            log_tools.send(journal, key, {"to": "a", "subject": "s", "body": "b"})
    assert len(list(journal.lines())) == 1


@pytest.mark.parametrize("name", ["", ".hidden", "../a", "a/b", "a\0", "/etc/passwd"])
def test_a_report_is_written_into_the_output_folder_only(tmp_path, name):
    journal = log_tools.Journal(tmp_path / "state", "reports.jsonl")
    with pytest.raises(log_tools.Refused, match="cannot name a report"):
        log_tools.write_report(tmp_path / "out", journal, "key", name, "text")
    assert not (tmp_path / "out").exists()


def test_a_crash_between_effect_and_record_gives_one_effect(tmp_path, monkeypatch):
    out, journal = tmp_path / "out", log_tools.Journal(tmp_path / "state", "reports.jsonl")

    def die(*_given, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_append", die)
        with pytest.raises(KeyboardInterrupt):
            log_tools.write_report(out, journal, "key", "a.md", "text")
    assert (out / "a.md").read_text() == "text"
    log_tools.write_report(out, journal, "key", "a.md", "text")
    assert len(list(journal.lines())) == 1


def test_half_a_line_left_by_a_loss_of_power_is_dropped(tmp_path):
    journal = log_tools.Journal(tmp_path, "outbox.jsonl")
    log_tools.send(journal, "one", {"to": "a", "subject": "s", "body": "b"})
    with (tmp_path / "outbox.jsonl").open("ab") as file:
        file.write(b'{"key": "tw')
    log_tools.send(journal, "two", {"to": "a", "subject": "s", "body": "b"})
    assert [line["key"] for line in journal.lines()] == ["one", "two"]


def test_two_processes_with_the_same_key_have_one_effect(tmp_path):
    effects = []
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        effects.append("first")
        begun.set()
        go_on.wait(10)

    def apply(effect):
        log_tools.Journal(tmp_path, "outbox.jsonl").apply("key", {"to": "a"}, effect)

    first = threading.Thread(target=apply, args=(slow,))
    second = threading.Thread(target=apply, args=(lambda: effects.append("second"),))
    first.start()
    begun.wait(10)
    second.start()
    second.join(0.3)  # without the lock, it would be done by now
    go_on.set()
    first.join()
    second.join()
    assert effects == ["first"]
    assert len((tmp_path / "outbox.jsonl").read_text().splitlines()) == 1


# --- the servers ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def open_example(folder, mode="strict"):
    key = load_public_key((EXAMPLE / "tools" / "example.pub.pem").read_bytes())
    names = ("files", "notify")
    manifests = {
        name: parse_manifest(f"{name}.toml", (EXAMPLE / "tools" / f"{name}.toml").read_text()) for name in names
    }
    async with open_gate() as gate, AsyncExitStack() as stack:
        links = []
        for name in names:
            command = [
                sys.executable,
                str(SCRIPT),
                name,
                "--out",
                str(folder / "out"),
                "--state",
                str(folder / "state"),
            ]
            server = await stack.enter_async_context(StdioToolServer(name, command, gate.guard.authority))
            links.append(ServerLink(name, server.command_line, server))
        verifier = ToolVerifier(
            VerificationMode(mode), gate.store, gate.log, gate.engine, gate.clock,
            keys=dict.fromkeys(names, key), manifests=manifests,
        )  # fmt: skip
        catalog = Catalog(gate.guard, verifier, links)
        for name in names:
            await catalog.refresh(name)
        old = gate.engine.current
        tools = [ToolType(ref.name, ref.input_schema) for ref in catalog.refs]
        gate.engine.replace(PolicySet.load(old.sources, old.compiled, tools))
        yield Invoker(catalog, gate.guard), catalog, links


def counts(folder):
    command = [sys.executable, str(SCRIPT), "counts", "--state", str(folder / "state")]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


@pytest.mark.anyio
async def test_the_shipped_signatures_hold_and_the_tools_work(tmp_path):
    async with open_example(tmp_path) as (invoker, catalog, _):
        assert catalog.quarantined == {}
        assert {tool.ref.name: tool.ref.recovery for tool in catalog.tools} == {
            "files.read_log": RecoveryClass.READ_ONLY,
            "files.stat_log": RecoveryClass.READ_ONLY,
            "files.write_report": RecoveryClass.IDEMPOTENT,
            "notify.send": RecoveryClass.IDEMPOTENT,
        }
        assert all(tool.ref.verified for tool in catalog.tools)

        async def call(tool, **arguments):
            return (await invoker.call(invoker.prepare(AGENT, tool, arguments))).value

        log = str(EXAMPLE / "logs" / "access.log")
        info = await call("files.stat_log", path=log)
        text = "".join([(await call("files.read_log", path=log, chunk=n))["text"] for n in range(info["chunks"])])
        await call("files.write_report", name="a.md", text="größe")
        await call("notify.send", to="oncall@example.com", subject="s", body="b")
    assert text == (EXAMPLE / "logs" / "access.log").read_text()
    assert (tmp_path / "out" / "a.md").read_text() == "größe"
    assert counts(tmp_path) == {
        "files.stat_log": {"calls": 1, "effects": 0},
        "files.read_log": {"calls": info["chunks"], "effects": 0},
        "files.write_report": {"calls": 1, "effects": 1},
        "notify.send": {"calls": 1, "effects": 1},
    }


@pytest.mark.anyio
async def test_a_repeated_call_after_a_kill_has_one_effect(tmp_path):
    message = {"to": "oncall@example.com", "subject": "s", "body": "b"}
    async with open_example(tmp_path) as (invoker, catalog, links):
        action = invoker.prepare(AGENT, "notify.send", message)
        server = links[1].server
        for _ in range(3):
            permit = server._authority.mint("effect-7", action)
            assert (await server.call(permit, {})).structured == {"to": "oncall@example.com", "queued": True}
            process = server._session.line
            os.killpg(process.pid, signal.SIGKILL)
            await process.ended.wait()
            await catalog.refresh("notify")
    assert counts(tmp_path)["notify.send"] == {"calls": 3, "effects": 1}
    (line,) = (tmp_path / "state" / "outbox.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == "effect-7"


def test_every_definition_is_signed_and_in_a_manifest():
    signatures = json.loads((EXAMPLE / "server" / "signatures.json").read_text())
    for role, offered in log_tools.DEFINITIONS.items():
        names = {one["name"] for one in offered}
        assert set(signatures[role]) == names
        manifest = parse_manifest(f"{role}.toml", (EXAMPLE / "tools" / f"{role}.toml").read_text())
        assert set(manifest.tools) == names


def test_a_server_for_a_role_takes_its_folders(tmp_path):
    options = Namespace(root=tmp_path, out=tmp_path, state=tmp_path)
    assert log_tools.make_server("files", options).name == "log-triage-files"
