"""How agents and topics are addressed, and the checks of `send`, `ask` and `publish` that a file alone allows.

An agent is `NAME`, or `NAME/INSTANCE` where several were made of one declaration. A topic is words with dots between
them. A pattern of topics may have `*` for one word, and `>` at its end for all the words that are left, one at least.
"""

import re
from collections.abc import Mapping
from typing import Final

from symbi.dsl import ast
from symbi.dsl.builtins import EFFECTS
from symbi.dsl.findings import Findings
from symbi.errors import InputError, did_you_mean

MAX_TOPIC_CHARS: Final = 200
MAX_AFTER_S: Final = 366 * 86_400.0
"""How much later than it is sent a message may be due."""
AGENT_ADDRESS: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?", re.ASCII)
"""`NAME` or `NAME/INSTANCE`."""
_WORD: Final = r"[A-Za-z0-9_-]+"
TOPIC_NAME: Final = re.compile(rf"{_WORD}(?:\.{_WORD})*")
"""`incidents.open`."""
_PART: Final = rf"(?:{_WORD}|\*)"
TOPIC_PATTERN: Final = re.compile(rf">|{_PART}(?:\.{_PART})*(?:\.>)?")
"""`incidents.*.eu`, `incidents.>`."""


def is_topic(name: str) -> bool:
    """Whether a text is the name of a topic."""
    return len(name) <= MAX_TOPIC_CHARS and TOPIC_NAME.fullmatch(name) is not None


def parse_pattern(text: str) -> str:
    """A pattern of topics.

    Raises:
        InputError: It is none.
    """
    if len(text) > MAX_TOPIC_CHARS or TOPIC_PATTERN.fullmatch(text) is None:
        shown = text[:MAX_TOPIC_CHARS] if text.isprintable() else "…"
        msg = f"`{shown}` is not a pattern of topics"
        hint = "write words with dots between them; `*` stands for one word, `>` at the end for the rest"
        raise InputError(msg, code="input.topic", hint=hint)
    return text


def check_message(
    node: ast.Call, name: str, agents: Mapping[str, ast.Agent], own: str | None, findings: Findings
) -> None:
    """What can be known of a message before it is sent: that its address is one, and what an agent of the file takes.

    Args:
        node: A call of `send`, `ask` or `publish`.
        name: Which of them.
        agents: The agents of the file, by name.
        own: Whose body it stands in; None for a function of the file.
        findings: Takes what is wrong.
    """
    parameters = EFFECTS[name].parameters
    given = {
        argument.name or (parameters[position] if position < len(parameters) else ""): argument.value
        for position, argument in enumerate(node.arguments)
    }
    address = given.get(parameters[0])
    if isinstance(address, ast.String):
        if name == "publish":
            _topic(address, findings)
        else:
            _agent(address, name, given.get("message"), agents, own, findings)
    later = given.get("after")
    if isinstance(later, ast.Number | ast.Duration):
        seconds = later.seconds if isinstance(later, ast.Duration) else later.value
        if seconds > MAX_AFTER_S:
            findings.error("after", "a message can be due a year later at most", later.span)
    elif isinstance(later, ast.String | ast.Boolean | ast.Array | ast.Record):
        findings.error("after", "`after` is a duration or a number of seconds", later.span, "write e.g. `after = 5m`")


def _topic(address: ast.String, findings: Findings) -> None:
    if not is_topic(address.value):
        message = f"`{address.value}` is not the name of a topic"
        hint = "write words with dots between them: `incidents.open`"
        if address.value and TOPIC_PATTERN.fullmatch(address.value):
            hint = "`*` and `>` are for those who listen; publish to one topic"
        findings.error("topic", message, address.span, hint)


def _agent(
    address: ast.String,
    name: str,
    body: ast.Expr | None,
    agents: Mapping[str, ast.Agent],
    own: str | None,
    findings: Findings,
) -> None:
    text = address.value
    if not AGENT_ADDRESS.fullmatch(text):
        findings.error("recipient", f"`{text}` is not the name of an agent", address.span, "write `NAME` as declared")
        return
    declared, _, instance = text.partition("/")
    if name == "ask" and declared == own and not instance:
        hint = "call a function, or send it a message"
        findings.error(
            "recipient", f"agent `{own}` cannot ask itself: it would wait for its own end", address.span, hint
        )
        return
    recipient = agents.get(declared)
    if recipient is None:
        if hint := did_you_mean(declared, agents):
            findings.warning("recipient", f"there is no agent `{declared}` in this file", address.span, hint)
    elif body is not None:
        _inputs(recipient, body, findings)


def _inputs(recipient: ast.Agent, body: ast.Expr, findings: Findings) -> None:
    """A message that is written out against the inputs of an agent of the file."""
    takes = ", ".join(f"{one.name}: {one.type.name}" for one in recipient.parameters) or "nothing"
    hint = f"it takes {takes}"
    names = [one.name for one in recipient.parameters]
    if isinstance(body, ast.Record):
        for field in body.fields:
            if field.key not in names:
                message = f"agent `{recipient.name}` has no input `{field.key}`"
                findings.error("message", message, field.span, did_you_mean(field.key, names) or hint)
        there = {field.key for field in body.fields}
        for one in recipient.parameters:
            if one.name not in there and one.type.name != "Optional":
                message = f"agent `{recipient.name}` needs the input `{one.name}`"
                findings.error("message", message, body.span, hint)
    elif isinstance(body, ast.String | ast.Number | ast.Boolean | ast.Duration | ast.Array) and len(names) != 1:
        message = f"agent `{recipient.name}` has {len(names)} inputs, and only the one input of an agent can go without its name"
        findings.error("message", message, body.span, hint)
