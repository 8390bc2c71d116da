"""`schedule` declarations: which agent of the file is run when."""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from symbi.dsl import ast
from symbi.dsl.body import note_repeated
from symbi.dsl.findings import Findings
from symbi.dsl.messages import is_topic
from symbi.dsl.spec import ScheduleSpec
from symbi.dsl.timetable import Timetable, parse_cron, parse_moment
from symbi.errors import InputError, did_you_mean
from symbi.types import AgentId

LATER_KEYS: Final = ("policy", "audit")
"""Keys of the language that nothing carries out yet."""


Runs: TypeAlias = Callable[[ast.Agent], bool]
"""Whether an agent has a body."""


def read_schedules(file: ast.File, runs: Runs, findings: Findings) -> tuple[ScheduleSpec, ...]:
    """The schedules of a file; what is wrong with one is noted at its place.

    Args:
        file: The file.
        runs: Whether an agent has a body.
        findings: Takes what is wrong.
    """
    agents = {node.name: node for node in file.declarations if isinstance(node, ast.Agent)}
    nodes = [node for node in file.declarations if isinstance(node, ast.Schedule)]
    note_repeated(((node.name, node.span) for node in nodes), "schedule", findings)
    found = [_read(node, agents, runs, findings) for node in nodes]
    return tuple(each for each in found if each is not None)


def _read(node: ast.Schedule, agents: Mapping[str, ast.Agent], runs: Runs, findings: Findings) -> ScheduleSpec | None:
    entries = {entry.key: entry for entry in node.entries}
    for key in LATER_KEYS:
        if key in entries:
            findings.later(key, entries[key].span, "remove it: nothing would carry it out")
    agent = _agent(entries["agent"], agents, runs, findings)
    one_shot = False
    if "one_shot" in entries:
        value = entries["one_shot"].value
        if isinstance(value, ast.Boolean):
            one_shot = value.value
        else:
            findings.error("schedule", "`one_shot` is true or false", value.span)
    topic = _topic(entries["deliver"], findings) if "deliver" in entries else ""
    table = _timetable(entries, findings)
    if table is None or agent is None:
        return None
    return ScheduleSpec(node.name, agent, table, one_shot=one_shot or table.at_ns is not None, deliver=topic)


def _agent(entry: ast.Entry, agents: Mapping[str, ast.Agent], runs: Runs, findings: Findings) -> AgentId | None:
    name = _word(entry.value)
    agent = agents.get(name or "")
    if agent is None:
        hint = did_you_mean(name or "", agents) or "a schedule runs an agent of its own file"
        findings.error("schedule", f"there is no agent `{name or '?'}` in this file", entry.value.span, hint)
        return None
    needed = [p.name for p in agent.parameters if p.type.name != "Optional"]
    if needed:
        msg = f"agent `{name}` needs the input `{needed[0]}`, and a schedule gives none"
        findings.error("schedule", msg, entry.value.span, "make it Optional, or schedule another agent")
        return None
    if not runs(agent):
        findings.error("schedule", f"agent `{name}` has nothing to run", entry.value.span)
        return None
    return AgentId(agent.name)


def _topic(entry: ast.Entry, findings: Findings) -> str:
    name = _word(entry.value)
    if name is None or not is_topic(name):
        hint = 'write words with dots between them, in quotes: `"reports.daily"`'
        findings.error("topic", f"`{name or '?'}` is not the name of a topic", entry.value.span, hint)
        return ""
    return name


def _timetable(entries: Mapping[str, ast.Entry], findings: Findings) -> Timetable | None:
    zone = "UTC"
    if "timezone" in entries:
        zone = _word(entries["timezone"].value) or ""
    entry = entries.get("cron") or entries["at"]
    text = _word(entry.value)
    if text is None:
        findings.error("schedule", f"`{entry.key}` is a text", entry.value.span)
        return None
    try:
        return parse_cron(text, zone) if entry.key == "cron" else parse_moment(text, zone)
    except InputError as error:
        wrong = entries["timezone"] if error.code == "schedule.timezone" and "timezone" in entries else entry
        findings.error("schedule", error.message, wrong.value.span, error.hint or "")
        return None


def _word(value: ast.Expr) -> str | None:
    match value:
        case ast.String(value=text):
            return text
        case ast.Name(id=name):
            return name
        case _:
            return None
