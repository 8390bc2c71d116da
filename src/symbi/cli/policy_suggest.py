"""`symbi policy suggest`: least-privilege policies from what was recorded, as a diff to review. It writes nothing."""

import dataclasses
import difflib
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symbi.audit.event import AuditEvent, AuditEventType, parse_event
from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_FAILED, err, errors_to_exit, print_json
from symbi.config import Settings, load_settings
from symbi.errors import InputError, VerificationError, did_you_mean
from symbi.guard.confidential import opened_request
from symbi.guard.vault import Vault
from symbi.policy.catalog import ToolType
from symbi.policy.edit import removed
from symbi.policy.history import reads
from symbi.policy.policies import PolicySet
from symbi.policy.source import PolicySource
from symbi.policy.stored import load_set, read_request
from symbi.policy.suggest import Example, Suggestion, differing, suggest, suggested_source
from symbi.types import EffectId, PolicyId
from symbi.wiring import known_tools, open_reader, read_policies, read_text, reading_vault, verifying_keys
from symbi.wiring.keeping import verify_live

_ALLOWED = frozenset({"allow", "allow_with_conditions"})
_DECIDED = frozenset({AuditEventType.DECISION_ALLOW, AuditEventType.LEASE_GRANTED})


@dataclass
class _Record:
    """What was allowed, and what of it cannot be used."""

    examples: list[Example] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    permitted_by: list[frozenset[str]] = field(default_factory=list)
    permits: set[str] = field(default_factory=set)
    version: str = ""
    set_text: str | None = None


def suggest_policies(
    *,
    run: Annotated[str | None, typer.Option(help="Only what this run did, its start included.")] = None,
    since: Annotated[str | None, typer.Option(help="Only what was decided from then on, e.g. 2026-03-01.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="The file to suggest; else `suggested.cedar` beside the policies.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also take out the permits that allowed it, so that nothing more is.")
    ] = False,
    text: Annotated[bool, typer.Option("--text", help="Print the text of the file, not a diff.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Suggest policies that permit what was recorded and little more, as a diff. Exit code 1: one decides otherwise."""
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        record = _read(settings, run, _time(since))
        last = None if record.set_text is None else load_set(record.set_text, record.version).policies
        tools = known_tools(settings) if last is None else last.tools  # the catalogue of the last of the requests
        if last is not None:
            record.examples = _with_changing(record, last)
        suggestions = suggest(record.examples, tools)
        name = str(file) if file is not None else _default_file(settings)
        new = suggested_source(name, suggestions)
        wrong = differing(new, record.examples, tools)
        sources = read_policies(settings)
        rest = _without_permits(sources, tools, record.permits) if replace else sources
        rest = [source for source in rest if source.file != name]
        PolicySet.load([*rest, new], (), tools)  # beside the others it loads as well
        diff = _diff(settings, sources, [*rest, new])
        if as_json:
            print_json(_json(record, suggestions, new, diff, wrong))
        else:
            typer.echo(new.text if text else diff, nl=False)  # as it is: it is to be applied
            _tell(record, suggestions, wrong)
        if wrong:
            raise typer.Exit(EXIT_FAILED)


def _time(since: str | None) -> str:
    """A time as the trail's texts begin.

    Raises:
        InputError: It is none, or not in UTC.
    """
    if since is None:
        return ""
    plain = since.removesuffix("Z")
    try:
        zone = datetime.fromisoformat(plain).tzinfo
    except ValueError:
        zone = None
        plain = ""
    if not plain or zone is not None:
        msg = f"`{since}` is not a time in UTC"
        raise InputError(msg, code="input.usage", hint="write 2026-03-01, or 2026-03-01T12:00:00Z")
    return plain.replace(" ", "T")


def _default_file(settings: Settings) -> str:
    folders = [path for path in settings.policy.paths if (settings.folder / path).is_dir()]
    folder = settings.folder / folders[0] if folders else settings.folder
    return os.path.relpath(folder / "suggested.cedar", settings.folder)


def _read(settings: Settings, run: str | None, since: str) -> _Record:
    """What the trail says was allowed, with the stored requests.

    Raises:
        InputError: There is no such run, or nothing was allowed.
        VerificationError: The trail does not verify, or a request is not the one that was decided on.
    """
    record = _Record()
    with open_reader(settings) as reader:
        report = verify_live(reader, verifying_keys(settings))
        if report.first > 1:
            err.print(
                f"[yellow]events 1 to {report.first - 1} have left the live store[/]: what they allowed is not seen"
            )
        events = [parse_event(stored.record, sequence=stored.sequence) for stored in reader.read(1)]
        vault = reading_vault(settings, reader)
        for event in _chosen(events, run, since):
            effect_id = EffectId(str(event.details["effect_id"]))
            rows = {row.digest: row.request for row in reader.requests_of(effect_id)}
            _take(record, event, effect_id, rows, vault)
        record.set_text = reader.policy_set(record.version)
    if not record.examples:
        why = f"; {len(record.left_out)} are not kept in full" if record.left_out else ""
        msg = f"nothing that was allowed can be used{why}"
        raise InputError(msg, code="input.nothing", hint="run an agent first, with policies that let it work")
    return record


def _chosen(events: Sequence[AuditEvent], run: str | None, since: str) -> list[AuditEvent]:
    """The decisions that let something happen; of a run also those that were made to start it."""
    decided = [e for e in events if e.event_type in _DECIDED and e.details.get("verdict") in _ALLOWED]
    if run is not None:
        of_run = [event for event in events if event.run_id == run]
        if not of_run:
            msg = f"there is no run `{run}`"
            hint = did_you_mean(run, {event.run_id for event in events if event.run_id})
            raise InputError(msg, code="input.run", hint=hint or None)
        first, last, agent = of_run[0].sequence, of_run[-1].sequence, of_run[0].agent_id
        decided = [
            event
            for event in decided
            if event.run_id == run or (not event.run_id and event.agent_id == agent and first <= event.sequence <= last)
        ]
    return [event for event in decided if event.timestamp >= since]


def _take(record: _Record, event: AuditEvent, effect_id: EffectId, rows: Mapping[str, bytes], vault: Vault) -> None:
    digest = event.details.get("request_digest")
    if digest is None:
        record.left_out.append((effect_id, "a release that kept no requests recorded it"))
        return
    data = rows.get(str(digest))
    if data is None or hashlib.sha256(data).hexdigest() != digest:
        msg = f"the stored request of effect `{effect_id}` is not the one that was decided on"
        raise VerificationError(msg, code="verify.request", hint="`symbi policy why` says more")
    opened, lost = opened_request(data, effect_id, vault)
    if opened is None:
        record.left_out.append((effect_id, lost))
        return
    stored = read_request(opened)
    permits = frozenset(str(ref["id"]) for ref in _listed(event, "policies"))
    record.permits |= permits
    if stored.withheld:
        record.left_out.append((effect_id, stored.withheld))
        return
    conditions = frozenset((str(c["kind"]), str(c["value"])) for c in _listed(event, "conditions"))
    labels = {
        name: (integrity, confidentiality, sources) for name, integrity, confidentiality, sources in stored.labels
    }
    record.permitted_by.append(permits)
    record.examples.append(Example(effect_id, stored.request, conditions, labels))
    record.version = str(event.details["policy_version"])


def _listed(event: AuditEvent, name: str) -> list[Mapping[str, object]]:
    listed = event.details.get(name)
    return [item for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []


def _with_changing(record: _Record, policies: PolicySet) -> list[Example]:
    """The requests, with what the permits that allowed them read of the time and of what came before."""
    known = {policy.id: reads(policy.json["conditions"]) for policy in policies.policies if policy.id in record.permits}
    return [
        dataclasses.replace(
            example, changing=frozenset[str]().union(*(known.get(PolicyId(one), ()) for one in permits))
        )
        for example, permits in zip(record.examples, record.permitted_by, strict=True)
    ]


def _without_permits(
    sources: Sequence[PolicySource], tools: Sequence[ToolType], permits: Iterable[str]
) -> list[PolicySource]:
    policies = PolicySet.load(sources, (), tools)
    gone = {PolicyId(name) for name in permits}
    return [removed(source, policies, gone) for source in sources]


def _diff(settings: Settings, old: Sequence[PolicySource], new: Sequence[PolicySource]) -> str:
    """What `patch -p1` in the configuration's folder would take."""
    before = {source.file: source.text for source in old}
    lines: list[str] = []
    for source in new:
        path = settings.folder / source.file
        was = before.get(source.file, read_text(path) if path.is_file() else None)
        if was == source.text:
            continue
        lines += difflib.unified_diff(
            [] if was is None else was.splitlines(keepends=True),
            source.text.splitlines(keepends=True),
            "/dev/null" if was is None else f"a/{source.file}",
            f"b/{source.file}",
        )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _json(
    record: _Record, suggestions: Sequence[Suggestion], new: PolicySource, diff: str, wrong: Sequence[tuple[str, str]]
) -> dict[str, object]:
    return {
        "file": new.file,
        "text": new.text,
        "diff": diff,
        "requests": len(record.examples),
        "suggestions": [
            {"id": each.id, "effects": list(each.effects), "remarks": list(each.remarks)} for each in suggestions
        ],
        "left_out": [{"effect_id": effect, "reason": reason} for effect, reason in record.left_out],
        "differing": [{"effect_id": effect, "reason": reason} for effect, reason in wrong],
        "replaced": sorted(record.permits),
    }


def _tell(record: _Record, suggestions: Sequence[Suggestion], wrong: Sequence[tuple[str, str]]) -> None:
    """On standard error, so that the diff can be taken from standard output."""
    same = len(record.examples) - len(wrong)
    err.print(f"{len(suggestions)} suggestions; they decide {same} of {len(record.examples)} requests as recorded")
    for each in suggestions:
        for remark in each.remarks:
            err.print(f"[yellow]review[/] {escape(each.id)}: {escape(remark)}")
    for effect, reason in record.left_out:
        err.print(f"[yellow]left out[/] effect {escape(effect)}: {escape(reason)}")
    for effect, reason in wrong:
        err.print(f"[bold red]decides otherwise[/] effect {escape(effect)}: {escape(reason)}")
