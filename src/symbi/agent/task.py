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
from symbi.guard.confidential import keyed
from symbi.guard.outcome import encode_result
from symbi.guard.vault import NO_KEYS, Keys
from symbi.policy.about import subject_name
from symbi.policy.context import label_context
from symbi.policy.flow import join, join_subjects
from symbi.policy.grants import Grant, read_grant
from symbi.policy.obligations import read_mark
from symbi.types import Confidentiality, Integrity, JsonValue, Label

MAX_GRANT_DEPTH: Final = 16  # nesting of a grant file; bounds what reading one takes
_WHOLE: Final = ""  # no input is called so: among kept labels, the people whom all of it is about
_GRANT: Final = "*"  # likewise: among the kept labels of a message, its grant
_SUBJECT: Final = "subject:"
TASK_LABEL: Final = Label(sources=("task",))
"""Inputs come from the person who asked: clean, unless that person says otherwise."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is said of a run besides its inputs.

    Attributes:
        grant: What the task calls for, or None where nobody has said.
        labels: What the label of an input is raised to, by its name.
        subjects: The people whom the whole task, every input and the grant, is about; sorted.
    """

    grant: Grant | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()

    def label(self, name: str) -> Label:
        """The label of an input."""
        return join(TASK_LABEL, Label(subjects=self.subjects), self.labels.get(name, TASK_LABEL))

    @property
    def everybody(self) -> tuple[str, ...]:
        """The people whom anything of the task is about."""
        return join_subjects(self.subjects, *(label.subjects for label in self.labels.values()))

    @property
    def grant_json(self) -> bytes | None:
        """The grant as it is kept."""
        return None if self.grant is None else encode_result(self.grant.tools)

    @property
    def labels_json(self) -> bytes | None:
        """The labels as they are kept."""
        if not (self.labels or self.subjects):
            return None
        kept: dict[str, JsonValue] = {name: label_json(label) for name, label in sorted(self.labels.items())}
        if self.subjects:
            kept[_WHOLE] = list(self.subjects)
        return encode_result(kept)

    @property
    def carried_json(self) -> bytes | None:
        """Grant and labels together, as a message carries them."""
        if self.grant is None:
            return self.labels_json
        return encode_result({**json.loads(self.labels_json or b"{}"), _GRANT: self.grant.tools})

    def facts(self, keys: Keys = NO_KEYS) -> dict[str, JsonValue]:
        """What the trail says of it: the digest of the grant, and the labels.

        Args:
            keys: Of whom the task is about.
        """
        facts: dict[str, JsonValue] = {}
        if (grant := self.grant_json) is not None:
            facts["grant_digest"] = keyed(hashlib.sha256(grant).hexdigest(), keys)
        if self.labels:
            facts["input_labels"] = {name: label_context(label) for name, label in sorted(self.labels.items())}
        return facts


NO_TASK: Final = Task()
"""Nothing is said."""


def kept_task(grant: bytes | None, labels: bytes | None) -> Task:
    """A task as `Task` had it kept, by itself or with a message.

    Raises:
        StoreUnavailable: It is not of that form.
    """
    try:
        kept: dict[str, Any] = {} if labels is None else {**json.loads(labels)}
        tools = kept.pop(_GRANT, None) if grant is None else json.loads(grant)
        said = None if tools is None else read_grant(tools, "")
        subjects = join_subjects([str(one) for one in kept.pop(_WHOLE, ())])
        raised = {name: read_label(label) for name, label in kept.items()}
    except (SymbiError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"the store holds a grant or labels of a run that were not written by it: {error}"
        raise StoreUnavailable(msg, code="unavailable.store_damaged") from error
    return Task(said, raised, subjects)


def label_json(label: Label) -> dict[str, JsonValue]:
    """A label as it is kept; without its sources."""
    subjects: dict[str, JsonValue] = {"subjects": list(label.subjects)} if label.subjects else {}
    return {**label_context(label), **subjects}


def read_label(kept: Mapping[str, Any]) -> Label:
    """A label as `label_json` had it kept.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: It is not of that form.
    """
    integrity, confidentiality = Integrity(kept["integrity"]), Confidentiality(kept["confidentiality"])
    return Label(
        integrity,
        confidentiality,
        categories=tuple(str(one) for one in kept["categories"]),
        subjects=join_subjects([str(one) for one in kept.get("subjects", ())]),
    )


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
            label = _read_label(text)
        except InputError as error:
            msg = f"`--label {pair}`: {error.message.replace('a mark', 'a label')}"
            raise InputError(msg, code="input.label", hint=error.hint) from None
        labels[name] = join(labels.get(name, label), label)
    return labels


def _read_label(text: str) -> Label:
    """A label in the words of a mark; among them `subject:NAME`, of which the name has no comma."""
    words = [word.strip() for word in text.split(",")]
    names = [word.removeprefix(_SUBJECT) for word in words if word.startswith(_SUBJECT)]
    rest = [word for word in words if not word.startswith(_SUBJECT)]
    label = read_mark(",".join(rest)) if rest else Label()
    return join(label, Label(subjects=parse_subjects(names)))


def parse_subjects(names: Iterable[str]) -> tuple[str, ...]:
    """The people whom something is about, by the names that somebody wrote.

    Raises:
        InputError: One of them is no name.
    """
    return join_subjects([subject_name(name) for name in names])


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
