"""A program of an image in a container of its own: files in, the program, files out.

The container is the same as that of code, but for its image. Our own first process is in it all the same, and so the
image needs a Python: it looks at the place before there is any foreign program, puts the inputs where they are read,
keeps the time, and collects the outputs when every process of the program is dead. The look is as honest as that Python
is: whoever names an image in the configuration trusts it to start ours. What the engine was asked for holds without it.
"""

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import anyio

from symbi.adapters.docker.cell import Cell, open_cell
from symbi.adapters.docker.container import LABEL_EFFECT, LABEL_RUN, DockerOptions, inner_limits
from symbi.adapters.docker.engine import Engine
from symbi.adapters.docker.usage import ContainerUse
from symbi.clock import Clock
from symbi.errors import CodeFailed, InputError, MemoryLimit, OutputLimit, SandboxUnavailable, SymbiError, TimeLimit
from symbi.guard.action import RunContainer
from symbi.guard.actions.containers import file_bytes
from symbi.guard.permit import Permit
from symbi.sandbox.files import MAX_OUTPUT_BYTES, OUTPUT_FOLDER, read_outputs, too_large
from symbi.sandbox.inside.lines import PORT
from symbi.sandbox.port import CommandResult, Egress
from symbi.sandbox.request import INPUT_BOUNDS
from symbi.types import JsonValue

GRACE_S: Final = 5.0  # what the first process gets to end a program, and to collect, before its container is killed
PIECE_BYTES: Final = 262_144  # of a file, handed over at a time
MAX_MESSAGE_BYTES: Final = 65_536  # of an answer, beside texts and files
ESCAPED: Final = 6  # how much longer JSON makes a text at most
SIGNALLED: Final = 128  # what shells add to the number of the signal that ended a program
BASE_VARIABLES: Final = {"HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp"}  # noqa: S108 - inside the container
PROXY_VARIABLES: Final = dict.fromkeys(
    ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), f"http://127.0.0.1:{PORT}"
)
"""Where most programs look for a proxy; in a container the whole network is behind it."""
DEFAULT_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
WHAT_IS_NEEDED: Final = "an image of `run(…)` holds a `python3` of 3.8 or newer, which looks at the container first"


async def check_image(engine: Engine, image: str) -> Mapping[str, Any]:
    """What an engine knows of an image that can be used.

    Raises:
        SandboxUnavailable: It has none such, or a container of it would have writable disk.
    """
    found = await engine.image(image)
    if found is None:
        msg = f"the engine has no image `{image}`"
        hint = "pull it, or make one with `symbi sandbox image`, and name it in `sandbox.image` or `sandbox.images`"
        raise SandboxUnavailable(msg, code="unavailable.image", hint=hint)
    config = found.get("Config")
    volumes = config.get("Volumes") if isinstance(config, dict) else None
    if volumes:
        msg = f"the image `{image}` declares volumes, which would be writable disk without a bound"
        raise SandboxUnavailable(msg, code="unavailable.image", hint="make an image of it without `VOLUME`")
    return found


class Due(NamedTuple):
    """A program that is to run.

    Attributes:
        permit: For it; what the container is like, and which files went in and out, is noted in it.
        action: What the authority says that it is for.
        begin: Redeems it; nothing of the program happens before.
    """

    permit: Permit[RunContainer]
    action: RunContainer
    begin: Callable[[], RunContainer]


async def run_program(
    engine: Engine,
    options: DockerOptions,
    due: Due,
    clock: Clock,
    use: ContainerUse,
    egress: Egress | None = None,
) -> CommandResult:
    """Run the program of a permit that was checked; see `symbi.sandbox.port.CommandSandbox`.

    Args:
        engine: Where.
        options: How containers of the tier are made.
        due: What, its permit checked.
        clock: Measures how long it takes.
        use: Measures what it uses.
        egress: Grants it a network, where the permit is for one.
    """
    permit, action, begin = due
    if egress is None and (action.network or action.credentials):
        msg = "no network can be granted to a program"
        raise SandboxUnavailable(msg, code="unavailable.network", hint="run it without `network` and `credentials`")
    files = {name: file_bytes(value) for name, value in action.inputs.items()}
    size = sum(map(len, files.values()))
    if size > INPUT_BOUNDS.max_bytes:
        msg = f"inputs of {size} bytes are more than {INPUT_BOUNDS.max_bytes}"
        raise InputError(msg, code="sandbox.files")
    session = await egress.open(permit) if egress is not None and action.network else None
    found = await check_image(engine, action.image)
    permit.note("files_in", {name: _facts(data) for name, data in files.items()})
    options = replace(options, image=action.image)
    request = _request(action, options, _search_path(found))
    async with _cell(engine, options, permit, action) as cell:
        started_s = clock.monotonic_s()
        answer: bytes | None = None
        begun = False
        async with use.measured(action.run_id, cell.name):
            with anyio.move_on_after(action.timeout_s + GRACE_S):
                for piece in _pieces(files):
                    await cell.hand_over(piece)
                begin()
                begun = True
                try:
                    answer = await cell.ask(request, _most_bytes(options), None if session is None else session.serve)
                finally:
                    if session is not None:
                        permit.note("egress", session.totals())
        took_s = clock.monotonic_s() - started_s
    if not begun:
        raise _not_handed_over(action)
    if answer is None:
        raise _time_limit(action)
    ended = _ended(answer, action, options)
    outputs = _outputs(ended.get("outputs"), action, failed=ended["status"] != 0)
    permit.note("files_out", {name: _facts(data) for name, data in outputs.items() if data is not None})
    stdout, stderr = (_text(ended.get(name), options.output_bytes) for name in ("stdout", "stderr"))
    return CommandResult(_code(ended["status"]), stdout, stderr, read_outputs(outputs), took_s)


@asynccontextmanager
async def _cell(
    engine: Engine, options: DockerOptions, permit: Permit[RunContainer], action: RunContainer
) -> AsyncIterator[Cell]:
    """A container of the image that was looked at; where none comes about, the error says what the image lacks."""
    labels = {LABEL_EFFECT: str(permit.effect_id), LABEL_RUN: str(action.run_id)}
    begun = False
    try:
        async with open_cell(
            engine, options, action.tier, labels, memory_mib=action.memory_mib, tell=partial(permit.note, "sandbox")
        ) as cell:
            begun = True
            yield cell
    except SandboxUnavailable as error:
        refused = error.code == "unavailable.engine" and "status" in error.fields
        if begun or not (refused or error.code in {"unavailable.sandbox_died", "unavailable.sandbox_answer"}):
            raise
        msg = f"no container of the image `{action.image}` can be used: {error.message}"
        raise SandboxUnavailable(msg, code="unavailable.image", hint=WHAT_IS_NEEDED) from error


def _pieces(files: Mapping[str, bytes]) -> Iterator[dict[str, str]]:
    for name, data in files.items():
        for start in range(0, max(1, len(data)), PIECE_BYTES):
            part = base64.b64encode(data[start : start + PIECE_BYTES]).decode()
            yield {"kind": "file", "name": name, "data": part}


def _request(action: RunContainer, options: DockerOptions, path: str) -> dict[str, Any]:
    limits = inner_limits(options, action.tier, action.memory_mib)
    del limits["DATA"]  # who needs too much is ended by the control group, and so told apart from who fails by itself
    return {
        "kind": "command",
        "argv": list(action.command),
        "env": {
            **BASE_VARIABLES,
            "PATH": path,
            **(PROXY_VARIABLES if action.network else {}),
            **options.env,
            **action.env,
        },
        "proxy": bool(action.network),
        "outputs": list(action.outputs),
        "timeout_s": action.timeout_s,
        "limits": limits,
        "most_printed": options.output_bytes,
        "most_output": MAX_OUTPUT_BYTES,
    }


def _search_path(image: Mapping[str, Any]) -> str:
    """Where an image says that its programs are."""
    config = image.get("Config")
    variables = config.get("Env") if isinstance(config, dict) else None
    for variable in variables or ():
        name, _, value = str(variable).partition("=")
        if name == "PATH" and value:
            return value
    return DEFAULT_PATH


def _most_bytes(options: DockerOptions) -> int:
    return ESCAPED * (options.output_bytes + 2) + 2 * MAX_OUTPUT_BYTES + MAX_MESSAGE_BYTES


def _ended(data: bytes, action: RunContainer, options: DockerOptions) -> Mapping[str, Any]:
    """An answer that says that the program has ended, with its status; every other is an error."""
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"kind": "ended", "status": int(status), "oom": int(kills)} if not isinstance(status, bool):
            if kills > 0 and status != 0:
                raise _memory_limit(action)
            return {**answer, "status": status}
        case {"kind": "time"}:
            raise _time_limit(action)
        case {"kind": "printed"}:
            msg = f"the program printed more than {options.output_bytes} bytes"
            raise OutputLimit(msg, max_bytes=options.output_bytes)
        case {"kind": "staging", "errno": str(code)}:
            raise _not_staged(code, action, options)
        case {"kind": "exec", "errno": str(code)}:
            reason = {"ENOENT": "there is no such program", "EACCES": "it is no program"}.get(code, _word(code))
            raise CodeFailed(f"`{_shown(action.command[0])}` cannot be run in the image: {reason}")
        case _:
            raise _no_answer()


def _outputs(told: object, action: RunContainer, *, failed: bool) -> dict[str, bytes | None]:
    """The bytes of each declared output; None for one that a program which failed did not write."""
    if not isinstance(told, list) or len(told) != len(action.outputs):
        raise _no_answer()
    found: dict[str, bytes | None] = {}
    for name, one in zip(action.outputs, told, strict=True):
        match one:
            case {"name": str(other), "data": str(data)} if other == name:
                try:
                    found[name] = base64.b64decode(data, validate=True)
                except ValueError:
                    raise _no_answer() from None
            case {"name": str(other), "problem": "ENOENT"} if other == name and failed:
                found[name] = None
            case {"name": str(other), "problem": str(code)} if other == name:
                raise _not_an_output(name, code)
            case _:
                raise _no_answer()
    return found


def _not_an_output(name: str, code: str) -> SymbiError:
    match code:
        case "ENOENT":
            hint = f"write it to `{OUTPUT_FOLDER}/{name}`"
            return CodeFailed(f"the program did not write its output `{name}`", hint=hint)
        case "EFBIG":
            return too_large(name)
        case "ELOOP" | "EMLINK":
            return CodeFailed(f"output `{name}` is a link, or lies behind one")
        case "EINVAL" | "ENXIO" | "ENOTDIR" | "EISDIR":
            return CodeFailed(f"output `{name}` is no regular file")
        case _:
            return CodeFailed(f"output `{name}` cannot be read: {_word(code)}")


def _not_staged(code: str, action: RunContainer, options: DockerOptions) -> SymbiError:
    if code in {"ENOSPC", "EFBIG", "ENOMEM"}:
        msg = "the inputs do not fit into the sandbox"
        hint = f"`/tmp` has {options.tmpfs_mib} MiB and a file {options.file_size_mib} MiB: see `[sandbox]`"
        return MemoryLimit(msg, hint=hint, memory_mib=action.memory_mib)
    return SandboxUnavailable(f"the inputs could not be put into the sandbox: {_word(code)}")


def _not_handed_over(action: RunContainer) -> SandboxUnavailable:
    """Of a program that did not begin: its permit is not spent, so nobody is in doubt whether it ran."""
    msg = f"the inputs were not in the sandbox within {action.timeout_s + GRACE_S:g} s, so the program did not begin"
    hint = "give it more time, or less to read"
    return SandboxUnavailable(msg, code="unavailable.sandbox_inputs", hint=hint)


def _facts(data: bytes) -> JsonValue:
    return [hashlib.sha256(data).hexdigest(), len(data)]


def _code(status: int) -> int:
    """The exit code that a shell would give of a status of `wait`."""
    return SIGNALLED + (status & 0x7F) if status & 0x7F else (status >> 8) & 0xFF


def _text(told: object, most: int) -> str:
    if not isinstance(told, str):
        raise _no_answer()
    return told[:most].encode("utf-8", "replace").decode("utf-8")


def _word(code: str) -> str:
    return code if code.isascii() and code.isalnum() and len(code) <= len("EADDRNOTAVAIL") else "unknown"


def _shown(word: str) -> str:
    return (word if word.isprintable() else ascii(word)[1:-1])[:60].replace("`", "'")


def _time_limit(action: RunContainer) -> TimeLimit:
    return TimeLimit(f"the program ran longer than {action.timeout_s:g} s", timeout_s=action.timeout_s)


def _memory_limit(action: RunContainer) -> MemoryLimit:
    return MemoryLimit(f"the program needed more than {action.memory_mib} MiB", memory_mib=action.memory_mib)


def _no_answer() -> SandboxUnavailable:
    return SandboxUnavailable("what the sandbox says is no answer", code="unavailable.sandbox_answer")
