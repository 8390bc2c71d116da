"""`symbi kb`: documents that agents and people look up; through the owner of the data folder, or in its place."""

import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import anyio.to_thread
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from symbi.api.caller import Caller, operate
from symbi.api.client import ask_owner, connect_owner
from symbi.api.knowledge import KNOWLEDGE_TIMEOUT_S, MAX_LISTED, OPERATIONS
from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_FAILED, EXIT_VERIFICATION, counted, err, errors_to_exit, out, print_json
from symbi.cli.run import run_to_end
from symbi.config import Settings, load_settings
from symbi.errors import InputError, PolicyDenied
from symbi.knowledge.query import analyse
from symbi.knowledge.rag import require_count
from symbi.runtime.runtime import Runtime
from symbi.tools.text import printable
from symbi.types import JsonValue
from symbi.wiring import folder_owner, open_runtime, start_logging

app = typer.Typer(help="Documents that agents and people look up.", no_args_is_help=True)

Ask = Callable[[str, Mapping[str, JsonValue]], Awaitable[Any]]
Collection = Annotated[str, typer.Option("--collection", "-k", help="Which collection; all of them if not given.")]
InCollection = Annotated[str, typer.Option("--collection", "-k", help="Which collection.")]
Purpose = Annotated[str, typer.Option(help="What it is wanted for, as policies ask.")]
Count = Annotated[int, typer.Option("--count", "-n", help="How many passages.")]

DEFAULT_COLLECTION: Final = "main"
SHOWN_SKIPS: Final = 20
_NONE: Final = "there are no documents"
PERMITTED_BY: Final = (
    "no policy speaks of it: `base.knowledge` and `base.control` in the `policies/base.cedar` that `symbi init` writes permit it, "
    'where symbi.toml has `[policy]` with `paths = ["policies"]`'
)
"""What to do where nothing permits a command, as in a folder that has no policies."""
LISTS: Final = ("added", "changed", "removed", "skipped", "left_alone")


@app.command("add")
def add(
    path: Annotated[Path, typer.Argument(help="A folder, or a file.")],
    *,
    collection: InCollection = DEFAULT_COLLECTION,
    name: Annotated[
        str, typer.Option("--as", help="What sources begin with; the folder's own name if not given.")
    ] = "",
    moved: Annotated[bool, typer.Option("--moved", help="It is what was read before, and lies elsewhere now.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Read a folder, or a file: what is new and what has changed; what is gone from the folder goes. Again after a break does the rest."""
    with errors_to_exit(as_json=as_json):
        try:
            path.stat()
        except (OSError, ValueError) as error:
            msg = f"cannot read `{path}`: {getattr(error, 'strerror', None) or error}"
            raise InputError(msg, code="input.unreadable") from error
        arguments: dict[str, JsonValue] = {
            "collection": collection, "path": str(path.absolute()), "name": name, "moved": moved,
        }  # fmt: skip
        report = _together(load_settings(config), partial(_add, arguments, not as_json))
        if as_json:
            print_json(report)
        else:
            _tell(report)
        if report["skipped"]:
            raise typer.Exit(EXIT_FAILED)


async def _add(arguments: Mapping[str, JsonValue], shown: bool, ask: Ask) -> dict[str, Any]:  # noqa: FBT001 - of one caller
    report: dict[str, Any] = {name: [] for name in LISTS} | {"unchanged": 0, "chunks": 0, "files": 0}
    columns = (TextColumn("reading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    after = ""
    with Progress(*columns, console=err, transient=True, disable=not (shown and err.is_terminal)) as progress:
        task = progress.add_task("", total=None)
        while True:
            step = await ask("kb.add", {**arguments, "after": after})
            for one in LISTS:
                report[one] += step[one]
            for one in ("unchanged", "chunks"):
                report[one] += step[one]
            report["files"] = step["files"]
            progress.update(task, total=step["files"], completed=step["position"])
            if step["next"] is None:
                return report
            after = step["next"]


def _tell(report: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{len(report[name])} {name}" for name in ("added", "changed", "removed"))
    counts += f", {report['unchanged']} unchanged; {counted(report['chunks'], 'chunk')} written"
    out.print(f"{counted(report['files'], 'file')}: {counts}")
    for kind, style in (("skipped", "bold red"), ("left_alone", "dim")):
        for one in report[kind][:SHOWN_SKIPS]:
            text = escape(printable(f"{one['source']}: {one['reason']}"))
            err.print(f"[{style}]{'not read' if kind == 'skipped' else 'left alone'}:[/] {text}")
        if len(report[kind]) > SHOWN_SKIPS:
            err.print(f"[dim]and {len(report[kind]) - SHOWN_SKIPS} more; `--json` lists them all[/]")


@app.command("search")
def search(
    question: Annotated[
        str, typer.Argument(help="Words, or a question; `source:`, `kind:`, `after:`, `before:` narrow it.")
    ],
    *,
    collection: Collection = "",
    count: Count = 8,
    purpose: Purpose = "unknown",
    trace: Annotated[bool, typer.Option("--trace", help="Also show each stage with what it took.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Show the passages that have to do with a question, best first, with the places where they stand."""
    with errors_to_exit(as_json=as_json):
        arguments: dict[str, JsonValue] = {
            "question": _question(question, count), "collection": collection, "k": count, "purpose": purpose,
        }  # fmt: skip
        result = _one(load_settings(config), "kb.search", arguments)
        if as_json:
            print_json(result)
            return
        if not result["passages"]:
            out.print("nothing is found")
            _empty(result)
        for number, one in enumerate(result["passages"], 1):
            out.print(f"[bold]{number}.[/] {_place(one)} [dim]{one['score']:.3f}[/]")
            out.print("   " + escape("\n   ".join(printable(line) for line in one["text"].split("\n"))))
        _trace(result, trace)


@app.command("answer")
def answer(
    question: Annotated[str, typer.Argument(help="A question.")],
    *,
    collection: Collection = "",
    purpose: Purpose = "unknown",
    word_for_word: Annotated[
        bool, typer.Option("--extract", help="Word for word, also where a model is configured.")
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Also show each stage with what it took.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Answer a question from documents, with sources, or say that there is no answer. Exit code 1: there is none.

    Word for word; where `knowledge.answer_model` is set that model writes, and what it writes is checked against its sources.
    """
    with errors_to_exit(as_json=as_json):
        arguments: dict[str, JsonValue] = {
            "question": _question(question),
            "collection": collection,
            "purpose": purpose,
            "extract": word_for_word,
        }
        said = _one(load_settings(config), "kb.answer", arguments)
        if as_json:
            print_json(said)
        else:
            out.print(escape("\n".join(printable(line) for line in said["answer"].split("\n"))))
            for number, one in enumerate(said["sources"], 1):
                out.print(f"[bold]\\[{number}][/] {_place(one)}")
            if said["model"]:
                out.print(f"[dim]written by the model[/] {escape(printable(said['model']))}")
            _empty(said)
            if said["unwritten"]:
                err.print(f"[bold yellow]not written by the model[/] {escape(printable(said['unwritten']))}")
            _trace(said, trace)
        if not said["found"]:
            raise typer.Exit(EXIT_FAILED)


@app.command("list")
def list_documents(
    *, collection: Collection = "", purpose: Purpose = "unknown", as_json: Json = False, config: Config = None
) -> None:
    """List the documents that you may read, by collection and source."""
    with errors_to_exit(as_json=as_json):
        rows = _together(load_settings(config), partial(_list, collection, purpose))
        if as_json:
            print_json(rows)
            return
        if not rows:
            out.print(_NONE if not collection else f"{_NONE} in {escape(printable(collection))}")
        for one in rows:
            facts = f"{one['kind']}, {counted(one['chunks'], 'chunk')}, {one['classification']}, {one['modified'][:10]}"
            out.print(f"{escape(printable(one['collection'] + ' ' + one['source']))} [dim]{facts}[/]")


async def _list(collection: str, purpose: str, ask: Ask) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        last = rows[-1] if rows else {"collection": "", "source": ""}
        page = await ask(
            "kb.list",
            {
                "collection": collection,
                "purpose": purpose,
                "after_collection": last["collection"],
                "after_source": last["source"],
            },
        )
        rows += page
        if len(page) < MAX_LISTED:
            return rows


@app.command("rm")
def remove(
    sources: Annotated[list[str] | None, typer.Argument(help="Documents, as `symbi kb list` names them.")] = None,
    *,
    collection: InCollection = DEFAULT_COLLECTION,
    everything: Annotated[bool, typer.Option("--all", help="All documents of the collection.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Remove documents with their chunks, words and vectors."""
    with errors_to_exit(as_json=as_json):
        if bool(sources) is everything:
            msg = "name documents, or all of them with `--all`" + (", not both" if sources else "")
            raise InputError(msg, code="input.usage", hint="`symbi kb list` shows what there is")
        arguments: dict[str, JsonValue] = {"collection": collection, "sources": list(sources or ()), "all": everything}
        said = _one(load_settings(config), "kb.rm", arguments)
        if as_json:
            print_json(said)
        else:
            out.print(f"{counted(said['removed'], 'document')} removed")


@app.command("stats")
def stats(*, purpose: Purpose = "unknown", as_json: Json = False, config: Config = None) -> None:
    """Show what each collection holds that you may read."""
    with errors_to_exit(as_json=as_json):
        rows = _one(load_settings(config), "kb.stats", {"purpose": purpose})
        if as_json:
            print_json(rows)
            return
        if not rows:
            out.print(_NONE)
        for one in rows:
            out.print(
                f"[bold]{escape(printable(one['collection']))}[/] {counted(one['documents'], 'document')}, "
                f"{counted(one['chunks'], 'chunk')}, {one['sealed']} sealed, {counted(one['size_bytes'], 'byte')}"
            )


@app.command("verify")
def verify(
    *,
    collection: Collection = "",
    purpose: Purpose = "unknown",
    repair: Annotated[
        bool, typer.Option("--repair", help="Take out vectors without chunks, and make missing ones again.")
    ] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Compare documents, chunks and vectors that you may write, both ways. Exit code 4: they do not agree."""
    with errors_to_exit(as_json=as_json):
        rows = _one(
            load_settings(config), "kb.verify", {"collection": collection, "repair": repair, "purpose": purpose}
        )
        if as_json:
            print_json(rows)
        elif not rows:
            out.print(_NONE)
        for one in () if as_json else rows:
            state = "[bold green]agrees[/]" if one["clean"] else "[bold red]does not agree[/]"
            found = (
                f"{counted(one['orphans'], 'vector')} without a chunk, {counted(one['missing'], 'chunk')} without a vector, "
                f"{one['pending']} half written"
            )
            there = ", ".join(counted(one[f"{name}s"], name) for name in ("document", "chunk", "vector"))
            out.print(f"[bold]{escape(printable(one['collection']))}[/] {state}: {there}; {found}")
            if one["repaired"] and (one["orphans"] or one["missing"] or one["pending"]):
                out.print("  so it was; what did not agree was put in order")
            if one["refused"]:
                out.print(
                    f"  [bold red]left:[/] policy does not let vectors of {counted(one['refused'], 'document')} be made again"
                )
            for line in one["damaged"]:
                out.print(f"  [bold red]damaged:[/] {escape(printable(line))}")
        if not all(one["clean"] for one in rows):
            raise typer.Exit(EXIT_VERIFICATION)


def _place(one: Mapping[str, Any]) -> str:
    headings = f" — {one['headings']}" if one["headings"] else ""
    return escape(printable(f"{one['collection']}:{one['source']}{headings} ({one['start']}-{one['end']})"))


def _trace(result: Mapping[str, Any], shown: bool) -> None:  # noqa: FBT001 - as the option was given
    for stage in result["trace"] if shown else ():
        facts = ", ".join(f"{name} {value}" for name, value in stage["facts"].items())
        out.print(f"[dim]{stage['took_ms']:8.2f} ms  {stage['stage']}: {escape(printable(facts))}[/]")
    if shown:
        out.print(f"[dim]evidence {result['evidence']}[/]")


def _empty(result: Mapping[str, Any]) -> None:
    """Say so where a question was put to no document at all."""
    if any(stage["facts"].get("collections") == 0 for stage in result["trace"]):
        err.print("[dim]there are no documents yet: `symbi kb add FOLDER` reads those of a folder[/]")


def _one(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> Any:
    """Ask one thing."""

    async def ask_once(ask: Ask) -> Any:
        return await ask(operation, arguments)

    return _together(settings, ask_once)


def _together(settings: Settings, work: Callable[[Ask], Awaitable[Any]]) -> Any:
    """Ask the owner of the data folder for several things; without one, become the owner while it takes.

    Raises:
        SymbiError: What the owner said, or what stops us from being the owner.
    """
    start_logging(settings)
    try:
        return run_to_end(partial(_asking, settings, work), settings)
    except PolicyDenied as denied:
        if denied.hint is None and not denied.fields.get("policies"):
            denied.hint = PERMITTED_BY
        raise


def _question(text: str, count: int = 1) -> str:
    """A question, if it is one: that it is none is said before anything is opened or decided.

    Raises:
        InputError: It is none, or so many passages cannot be had.
    """
    analyse(text)
    require_count(count)
    return text


async def _asking(settings: Settings, work: Callable[[Ask], Awaitable[Any]]) -> Any:
    def over_socket(operation: str, arguments: Mapping[str, JsonValue]) -> Any:
        connection = connect_owner(settings.runtime.data_dir)
        if connection is None:
            return None
        return (ask_owner(connection, operation, arguments, KNOWLEDGE_TIMEOUT_S),)

    first = connect_owner(settings.runtime.data_dir)
    if first is None:
        async with open_runtime(settings) as runtime:
            return await work(partial(_own, settings, runtime))
    first.close()

    async def ask(operation: str, arguments: Mapping[str, JsonValue]) -> Any:
        answered = await anyio.to_thread.run_sync(over_socket, operation, arguments)
        if answered is None:  # it has ended since
            async with open_runtime(settings) as runtime:
                return await _own(settings, runtime, operation, arguments)
        return answered[0]

    return await work(ask)


async def _own(settings: Settings, runtime: Runtime, operation: str, arguments: Mapping[str, JsonValue]) -> Any:
    caller = Caller(os.geteuid(), folder_owner=os.geteuid() == folder_owner(settings))
    return await operate(runtime, OPERATIONS, caller, operation, arguments)
