"""What is said of a run besides its inputs: what it was asked to do (its grant), and what its inputs are (their labels).

Both are kept with the run and hold for a resumed one; nobody can give it others.

A grant file is JSON or TOML, in the form that `symbi.policy.grants` describes for one task, with tools by their whole
name:

```toml
[mail.read_inbox]
[mail.send_email]
recipients = ["anna@example.com"]
subject = { like = "Re: *" }
```
"""

import hashlib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final

from symbi.dsl.names import TOOL_NAME
from symbi.dsl.spec import AgentSpec
from symbi.errors import InputError, Place, StoreUnavailable, SymbiError, did_you_mean
from symbi.guard.outcome import encode_result
from symbi.policy.context import label_context
from symbi.policy.flow import join
from symbi.policy.grants import Grant, read_grant
from symbi.policy.obligations import read_mark
from symbi.types import Confidentiality, Integrity, JsonValue, Label

MAX_GRANT_DEPTH: Final = 16  # nesting of a grant file; bounds what reading one takes
TASK_LABEL: Final = Label(sources=("task",))
"""Inputs come from the person who asked: clean, unless that person says otherwise."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is said of a run besides its inputs.

    Attributes:
        grant: What the task calls for, or None where nobody has said.
        labels: What the label of an input is raised to, by its name.
    """

    grant: Grant | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)

    def label(self, name: str) -> Label:
        """The label of an input."""
        return join(TASK_LABEL, self.labels.get(name, TASK_LABEL))

    @property
    def grant_json(self) -> bytes | None:
        """The grant as it is kept."""
        return None if self.grant is None else encode_result(self.grant.tools)

    @property
    def labels_json(self) -> bytes | None:
        """The labels as they are kept."""
        if not self.labels:
            return None
        return encode_result({name: dict(label_context(label)) for name, label in sorted(self.labels.items())})

    def facts(self) -> dict[str, JsonValue]:
        """What the trail says of it: the digest of the grant, and the labels."""
        facts: dict[str, JsonValue] = {}
        if (grant := self.grant_json) is not None:
            facts["grant_digest"] = hashlib.sha256(grant).hexdigest()
        if self.labels:
            facts["input_labels"] = {name: label_context(label) for name, label in sorted(self.labels.items())}
        return facts


NO_TASK: Final = Task()
"""Nothing is said."""


def kept_task(grant: bytes | None, labels: bytes | None) -> Task:
    """A task as `Task` had it kept.

    Raises:
        StoreUnavailable: It is not of that form.
    """
    try:
        said = None if grant is None else read_grant(json.loads(grant), "")
        raised = {} if labels is None else {name: _kept_label(kept) for name, kept in json.loads(labels).items()}
    except (SymbiError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"the store holds a grant or labels of a run that were not written by it: {error}"
        raise StoreUnavailable(msg, code="unavailable.store_damaged") from error
    return Task(said, raised)


def _kept_label(kept: Mapping[str, Any]) -> Label:
    integrity, confidentiality = Integrity(kept["integrity"]), Confidentiality(kept["confidentiality"])
    return Label(integrity, confidentiality, categories=tuple(str(one) for one in kept["categories"]))


def parse_grant(file: str, text: str) -> Grant:
    """The grant of one task, as a JSON or (where the name ends in `.toml`) a TOML file says it.

    Raises:
        InputError: It is not of the form that the module describes; `place` says where, as far as that is known.
    """
    try:
        data = _read_toml(text) if file.endswith(".toml") else json.loads(text, object_pairs_hook=_once)
        _check_json(data)
        if isinstance(data, Mapping | list):
            _check_names(data)
        return read_grant(data, "")
    except InputError as error:
        error.place = error.place or Place(file, 1, 1)
        raise
    except json.JSONDecodeError as error:
        place = Place(file, error.lineno, error.colno)
        raise InputError(f"not JSON: {error.msg.lower()}", code="policy.grant", place=place) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot be read: {error}", code="policy.grant", place=Place(file, 1, 1)) from None


def _read_toml(text: str) -> dict[str, Any]:
    """Tables below a server's name are its tools: `[mail.send_email]` is `mail.send_email`."""
    tools: dict[str, Any] = {}
    for name, table in tomllib.loads(text).items():
        nested = {} if "." in name or not isinstance(table, dict) else table
        for tool, constraints in (nested or {"": table}).items():
            whole = f"{name}.{tool}" if nested else name
            if whole in tools:
                raise InputError(f"`{whole}` is there twice", code="policy.grant")
            tools[whole] = constraints
    return tools


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no name is there twice."""
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise InputError(f"`{name}` is there twice", code="policy.grant")
        made[name] = value
    return made


def _check_json(data: object, depth: int = MAX_GRANT_DEPTH) -> None:
    """Raise InputError if data is nested too deeply, or is not JSON: TOML has dates, and both can spell infinity."""
    if depth < 0:
        raise InputError(f"nested deeper than {MAX_GRANT_DEPTH} levels", code="policy.grant")
    parts: Iterable[object] = ()
    match data:
        case Mapping():
            parts = data.values()
        case list():
            parts = data
        case str() | int() | None:
            pass
        case float() if isfinite(data):
            pass
        case _:
            hint = "write dates and times as texts"
            raise InputError(f"`{data}` is not a value of JSON", code="policy.grant", hint=hint)
    for part in parts:
        _check_json(part, depth - 1)


def _check_names(names: Iterable[object]) -> None:
    """Raise InputError if a tool is named without its server, which in a live run does not go without saying."""
    for name in names:
        if isinstance(name, str) and not TOOL_NAME.fullmatch(name):
            hint = "write `server.tool`"
            raise InputError(f"`{name}` is not the name of a tool", code="policy.grant", hint=hint)


def parse_labels(pairs: Sequence[str]) -> dict[str, Label]:
    """NAME=LABEL pairs, of which each raises the label of an input; several of one input are joined.

    Raises:
        InputError: A pair is malformed.
    """
    labels: dict[str, Label] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            msg = f"`--label {pair}` is not of the form NAME=LABEL"
            raise InputError(msg, code="input.usage", hint="write e.g. `--label note=untrusted`")
        try:
            label = read_mark(text)
        except InputError as error:
            msg = f"`--label {pair}`: {error.message.replace('a mark', 'a label')}"
            raise InputError(msg, code="input.label", hint=error.hint) from None
        labels[name] = join(labels.get(name, label), label)
    return labels


def check_task(spec: AgentSpec, task: Task) -> None:
    """A task against the agent's parameters.

    Raises:
        InputError: It labels an input that the agent does not have.
    """
    names = [parameter.name for parameter in spec.parameters]
    for name in task.labels:
        if name not in names:
            takes = ", ".join(names) or "nothing"
            msg = f"agent `{spec.id}` has no input `{name}` to label"
            raise InputError(msg, code="input.unknown", hint=did_you_mean(name, names) or f"it takes {takes}")
