"""The tools of the log-triage example: two small MCP servers in one file.

    python log_tools.py files  --root DIR --out DIR --state DIR
    python log_tools.py notify --state DIR
    python log_tools.py counts --state DIR

`files` reads logs and writes reports, `notify` puts messages into an outbox, `counts` prints how often each tool was
called and how often it had an effect.

A relative path is taken below `--root`, without `..` and without symbolic links. An absolute path may name any
regular file: which ones an agent may read is what its policies say, and this server stands behind them.

Tools that change something take the caller's effect id (`_meta`, key `symbi/effect-id`) as an idempotency key: each
key is applied once, also when the call is repeated by another process after a `kill -9`. The record of what was
applied is in the state folder, and is what the outbox and the list of reports consist of.
"""

import argparse
import fcntl
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

EFFECT_ID_KEY = "symbi/effect-id"
WINDOW_BYTES = 192 * 1024  # a chunk holds the lines that begin in its window …
MAX_LINE_BYTES = 64 * 1024  # … and its last line reaches at most this far beyond it: 256 KiB in all
MAX_REPORT_BYTES = 1024 * 1024
SIGNATURES = Path(__file__).with_name("signatures.json")

# What each server offers, literally: a signature covers name, description, schemas and annotations.
DEFINITIONS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "files": (
        {
            "name": "stat_log",
            "description": "Size of a log: bytes, lines, and the number of chunks that `read_log` gives.",
            "inputSchema": {
                "type": "object",
                "properties": {"path": {"type": "string", "minLength": 1, "maxLength": 4096}},
                "required": ["path"],
                "additionalProperties": False,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "bytes": {"type": "integer", "minimum": 0},
                    "lines": {"type": "integer", "minimum": 0},
                    "chunks": {"type": "integer", "minimum": 1},
                },
                "required": ["bytes", "lines", "chunks"],
                "additionalProperties": False,
            },
            "annotations": {"readOnlyHint": True, "openWorldHint": False},
        },
        {
            "name": "read_log",
            "description": "One chunk of a log, counted from 0: whole lines, at most 256 KiB.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "minLength": 1, "maxLength": 4096},
                    "chunk": {"type": "integer", "minimum": 0},
                },
                "required": ["path", "chunk"],
                "additionalProperties": False,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "chunk": {"type": "integer", "minimum": 0},
                    "chunks": {"type": "integer", "minimum": 1},
                    "cut": {"type": "boolean", "description": "The last line was longer than 64 KiB and is cut."},
                },
                "required": ["text", "chunk", "chunks", "cut"],
                "additionalProperties": False,
            },
            "annotations": {"readOnlyHint": True, "openWorldHint": False},
        },
        {
            "name": "write_report",
            "description": "Writes a text into the output folder, in place of an earlier one of the same name.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"},
                    "text": {"type": "string"},
                },
                "required": ["name", "text"],
                "additionalProperties": False,
            },
            "outputSchema": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "bytes": {"type": "integer", "minimum": 0},
                    "sha256": {"type": "string"},
                },
                "required": ["name", "bytes", "sha256"],
                "additionalProperties": False,
            },
            "annotations": {"idempotentHint": True, "openWorldHint": False},
        },
    ),
    "notify": (
        {
            "name": "send",
            "description": "Puts a message to an address into the outbox.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "to": {"type": "string", "minLength": 3, "maxLength": 254},
                    "subject": {"type": "string", "maxLength": 998},
                    "body": {"type": "string", "maxLength": 262144},
                },
                "required": ["to", "subject", "body"],
                "additionalProperties": False,
            },
            "outputSchema": {
                "type": "object",
                "properties": {"to": {"type": "string"}, "queued": {"type": "boolean"}},
                "required": ["to", "queued"],
                "additionalProperties": False,
            },
            "annotations": {"destructiveHint": False, "openWorldHint": True},
        },
    ),
}


class Refused(Exception):
    """What the caller asked for cannot be done; its text is for the caller."""


# --- reading ---------------------------------------------------------------------------------------------------------


@contextmanager
def opened(root: Path, path: str) -> Iterator[int]:
    """A descriptor of a regular file."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if "\0" in path:
        raise Refused("a path holds no NUL")
    try:
        descriptor = os.open(path, flags) if Path(path).is_absolute() else _open_below(root, path, flags)
    except OSError as error:
        raise Refused(f"cannot read `{path}`: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(f"`{path}` is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _open_below(root: Path, path: str, flags: int) -> int:
    """Open step by step without following a link, so that no race leads out of the folder."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if not parts or ".." in parts:
        raise Refused(f"`{path}` leads out of the folder")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(parts[-1], flags | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def chunks_of(size: int) -> int:
    return max(1, -(-size // WINDOW_BYTES))


def stat_log(root: Path, path: str) -> dict[str, Any]:
    with opened(root, path) as descriptor:
        size = lines = 0
        last = b"\n"
        while block := os.read(descriptor, 1024 * 1024):
            size += len(block)
            lines += block.count(b"\n")
            last = block[-1:]
    return {"bytes": size, "lines": lines + (last != b"\n"), "chunks": chunks_of(size)}


def read_log(root: Path, path: str, chunk: int) -> dict[str, Any]:
    """The lines that begin in the chunk's window of bytes."""
    with opened(root, path) as descriptor:
        size = os.fstat(descriptor).st_size
        chunks = chunks_of(size)
        if chunk >= chunks:
            raise Refused(f"`{path}` has {chunks} chunks; there is no chunk {chunk}")
        begin = chunk * WINDOW_BYTES
        end = min(begin + WINDOW_BYTES, size)
        before = begin - 1 if begin else 0  # the byte before the window tells whether a line begins with it
        data = _pread(descriptor, end - before + MAX_LINE_BYTES, before)
    first = 0 if begin == 0 else data.find(b"\n") + 1
    if begin and (first == 0 or before + first >= end):
        return {"text": "", "chunk": chunk, "chunks": chunks, "cut": False}
    newline = data.find(b"\n", max(end - 1 - before, 0))
    reaches_end = before + len(data) >= size
    stop = newline + 1 if newline >= 0 else len(data)
    text = data[first:stop].decode("utf-8", "replace")
    return {"text": text, "chunk": chunk, "chunks": chunks, "cut": newline < 0 and not reaches_end}


def _pread(descriptor: int, count: int, offset: int) -> bytes:
    parts = []
    while count > 0 and (block := os.pread(descriptor, count, offset)):
        parts.append(block)
        count -= len(block)
        offset += len(block)
    return b"".join(parts)


# --- effects, each key once ------------------------------------------------------------------------------------------


class Journal:
    """Lines of JSON, one for each key that was applied; shared by processes through a lock."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / name
        self._lock = folder / f"{name}.lock"

    def apply(self, key: str | None, record: Mapping[str, Any], effect: Callable[[], None] = lambda: None) -> None:
        """Have the effect and write the record, unless the key was applied before.

        A process that dies between the two leaves an effect without a record; the effect must then give the same
        again, which writing the same file does. A message has no effect but its record.
        """
        if not key:
            raise Refused(f"no idempotency key: `_meta` must have `{EFFECT_ID_KEY}`")
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        with self._locked():
            known = {line["key"]: line["digest"] for line in self.lines()}
            if key in known:
                if known[key] != digest:
                    raise Refused("the idempotency key was used with other arguments")
                return
            effect()
            self._append({"key": key, "digest": digest, **record}, durable=True)

    def note(self, record: Mapping[str, Any]) -> None:
        """Write a record without a key; it outlives the process, if not a loss of power."""
        with self._locked():
            self._append(record, durable=False)

    def lines(self) -> Iterator[dict[str, Any]]:
        if self._path.exists():
            with self._path.open("rb") as file:
                yield from (json.loads(line) for line in file if line.endswith(b"\n"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._lock.open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _append(self, record: Mapping[str, Any], *, durable: bool) -> None:
        with self._path.open("ab+") as file:
            whole = file.seek(0, os.SEEK_END)
            while whole and _byte_at(file.fileno(), whole - 1) != b"\n":
                whole -= 1  # a machine that lost power may have left half a line
            file.truncate(whole)
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            if durable:
                os.fsync(file.fileno())


def _byte_at(descriptor: int, offset: int) -> bytes:
    return os.pread(descriptor, 1, offset)


def write_report(out: Path, journal: Journal, key: str | None, name: str, text: str) -> dict[str, Any]:
    data = text.encode()
    if len(data) > MAX_REPORT_BYTES:
        raise Refused(f"a report has at most {MAX_REPORT_BYTES} bytes")
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise Refused(f"`{name}` cannot name a report")
    record = {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def write() -> None:
        out.mkdir(parents=True, exist_ok=True)
        beside = out / f".{name}.{os.getpid()}"
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(out / name)

    journal.apply(key, record, write)
    return record


def send(outbox: Journal, key: str | None, message: Mapping[str, str]) -> dict[str, Any]:
    outbox.apply(key, message)
    return {"to": message["to"], "queued": True}


def counts(state: Path) -> dict[str, dict[str, int]]:
    """Calls and effects of each tool, over all processes that ever ran."""
    calls = Counter(line["tool"] for line in Journal(state, "calls.jsonl").lines())
    effects = {
        "files.write_report": sum(1 for _ in Journal(state, "reports.jsonl").lines()),
        "notify.send": sum(1 for _ in Journal(state, "outbox.jsonl").lines()),
    }
    tools = [f"{role}.{one['name']}" for role, offered in DEFINITIONS.items() for one in offered]
    return {tool: {"calls": calls[tool], "effects": effects.get(tool, 0)} for tool in tools}


# --- the servers -----------------------------------------------------------------------------------------------------


def make_server(role: str, options: argparse.Namespace) -> Server[Any]:
    root, state = options.root, options.state
    calls = Journal(state, "calls.jsonl")
    reports, outbox = Journal(state, "reports.jsonl"), Journal(state, "outbox.jsonl")

    def perform(name: str, given: dict[str, Any], key: str | None) -> dict[str, Any]:
        calls.note({"tool": f"{role}.{name}", "key": key})
        match (role, name):
            case ("files", "stat_log"):
                return stat_log(root, given["path"])
            case ("files", "read_log"):
                return read_log(root, given["path"], given["chunk"])
            case ("files", "write_report"):
                return write_report(options.out, reports, key, given["name"], given["text"])
            case ("notify", "send"):
                return send(outbox, key, {part: given[part] for part in ("to", "subject", "body")})
            case _:
                raise Refused(f"there is no tool `{name}`")

    async def list_tools(_context: Any, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        signatures = json.loads(SIGNATURES.read_text()).get(role, {}) if SIGNATURES.exists() else {}
        tools = []
        for definition in DEFINITIONS[role]:
            signature = signatures.get(definition["name"])
            meta = {"_meta": {"schemapin": {"signature": signature}}} if signature else {}
            tools.append(types.Tool.model_validate({**definition, **meta}))
        return types.ListToolsResult(tools=tools)

    async def call_tool(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        key = (params.meta or {}).get(EFFECT_ID_KEY)
        try:
            result = await anyio.to_thread.run_sync(
                perform, params.name, params.arguments or {}, key if isinstance(key, str) else None
            )
        except (Refused, KeyError, TypeError, OSError) as error:
            text = f"missing argument {error}" if isinstance(error, KeyError) else str(error)
            return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)
        summary = ", ".join(f"{name}: {value}" for name, value in result.items() if name != "text")
        return types.CallToolResult(content=[types.TextContent(type="text", text=summary)], structured_content=result)

    return Server(f"log-triage-{role}", version="1.0", on_list_tools=list_tools, on_call_tool=call_tool)


async def serve(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


def main() -> None:
    parser = argparse.ArgumentParser(description="The tools of the log-triage example.")
    parser.add_argument("role", choices=[*DEFINITIONS, "counts"], help="which server to be")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of relative paths (default: here)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for reports (default: out)")
    parser.add_argument("--state", type=Path, required=True, help="folder for outbox and counts")
    options = parser.parse_args()
    if options.role == "counts":
        print(json.dumps(counts(options.state), indent=2))
        return
    anyio.run(serve, make_server(options.role, options))


if __name__ == "__main__":
    main()
