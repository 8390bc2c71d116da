"""A framework from its TOML file: all of it, or an error that says where and why. docs/reference/frameworks.md tells the form."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from symbi.audit.event import AuditEventType
from symbi.compliance.framework import (
    ROOTS,
    STATE_EVENTS,
    Applies,
    AtLeast,
    Claim,
    Condition,
    Control,
    Every,
    Framework,
    InForce,
    NoneOfThem,
    Paired,
    Query,
    Scalar,
    Source,
    Test,
    Verified,
)
from symbi.compliance.reader import Path, Reader, dotted, parse_document
from symbi.errors import did_you_mean

APPLIES: Final = "Something happened, or was in force, that the control is about."
MAX_CONTROLS: Final = 500
MAX_CLAIMS: Final = 32  # of one control
MAX_WITHIN_S: Final = 31_622_400  # a leap year
_FRAMEWORK_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_CONTROL_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.()_-]{0,63}")
_CLAIM_ID: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PATH: Final = re.compile(r"(?:[A-Za-z0-9_-]+|\*)(?:\.(?:[A-Za-z0-9_-]+|\*))*")
_WORDS: Final = "a lower-case letter, then letters, digits and `-`; 40 at most"

_CLAIM_KEYS: Final = ("id", "says", "from", "types", "where", "key", "test")
_TRAIL_TESTS: Final = ("at_least", "none", "every", "followed_by", "preceded_by")
_CONDITION_KEYS: Final = ("is", "not", "like", "present", "at_least", "at_most")


def parse_framework(file: str, text: str) -> Framework:
    """Read a framework.

    Args:
        file: Its name as the user gave it, for messages.
        text: Its content.

    Raises:
        InputError: It is not TOML, or a key, an id, an event type or a test of it is unknown or malformed; `place` says
            where.
    """
    document = parse_document(file, text)
    reader = Reader(file, text)
    reader.allow(document, ("framework", "controls"), ())
    head = reader.table(document, "framework", ())
    path: Path = ("framework",)
    reader.allow(head, ("id", "title", "citation", "about"), path)
    framework = Framework(
        id=reader.name(head, "id", path, _FRAMEWORK_ID, _WORDS),
        title=reader.text(head, "title", path),
        citation=reader.text(head, "citation", path),
        about=reader.text(head, "about", path),
        controls=reader.each(document, "controls", (), _Controls(reader).read),
        digest=hashlib.sha256(text.encode()).hexdigest(),
    )
    if not 0 < len(framework.controls) <= MAX_CONTROLS:
        reader.fail(f"a framework has 1 to {MAX_CONTROLS} controls: `[[controls]]`", ("controls",))
    return framework


class _Controls:
    """Reads the controls of one file, whose ids are unique."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._ids: set[str] = set()

    def read(self, table: Mapping[str, Any], path: Path) -> Control:
        reader = self._reader
        reader.allow(table, ("id", "title", "citation", "question", "evidence", "applies_when", "cannot_know"), path)
        control_id = reader.name(
            table, "id", path, _CONTROL_ID, "a letter or digit, then letters, digits and `.()_-`; 64 at most"
        )
        if control_id in self._ids:
            reader.fail(f"the id `{control_id}` is there twice", (*path, "id"))
        self._ids.add(control_id)
        claims = reader.each(table, "evidence", path, self._claim)
        cannot_know = reader.texts(table, "cannot_know", path)
        self._check(control_id, claims, cannot_know, path)
        return Control(
            id=control_id,
            title=reader.text(table, "title", path),
            citation=reader.text(table, "citation", path),
            question=reader.text(table, "question", path),
            claims=claims,
            applies=self._applies(table, path),
            cannot_know=cannot_know,
        )

    def _check(self, control_id: str, claims: tuple[Claim, ...], cannot_know: tuple[str, ...], path: Path) -> None:
        """Refuse a control that would be met by nothing at all."""
        reader = self._reader
        if not claims and not cannot_know:
            hint = "give `[[controls.evidence]]`, or say in `cannot_know` what software cannot tell"
            reader.fail(f"control `{control_id}` names no evidence", (*path, "id"), hint=hint)
        if claims and not any(claim.positive for claim in claims):
            hint = "add evidence that something happened; that nothing did is true of an empty trail too"
            reader.fail(f"control `{control_id}` would be met by an empty trail", (*path, "id"), hint=hint)
        if len(claims) > MAX_CLAIMS:
            reader.fail(f"control `{control_id}` has more than {MAX_CLAIMS} pieces of evidence", (*path, "id"))
        ids = [claim.id for claim in claims]
        for number, claim_id in enumerate(ids):
            if claim_id in ids[:number]:
                reader.fail(f"the id `{claim_id}` is there twice", (*path, "evidence", number, "id"))

    def _applies(self, table: Mapping[str, Any], path: Path) -> Applies | None:
        if "applies_when" not in table:
            return None
        reader, path = self._reader, (*path, "applies_when")
        given = reader.table(table, "applies_when", path[:-1])
        reader.allow(given, ("from", "types", "where", "key", "test", "otherwise"), path)
        otherwise = reader.text(given, "otherwise", path)
        claim = self._claim_of({"test": {"at_least": 1}, **given}, path, "applies", APPLIES)
        if not claim.positive:
            reader.fail("`applies_when` asks for something that happened", (*path, "test"))
        return Applies(claim, otherwise)

    def _claim(self, table: Mapping[str, Any], path: Path) -> Claim:
        reader = self._reader
        reader.allow(table, _CLAIM_KEYS, path)
        claim_id = reader.name(table, "id", path, _CLAIM_ID, _WORDS)
        return self._claim_of(table, path, claim_id, reader.text(table, "says", path))

    def _claim_of(self, table: Mapping[str, Any], path: Path, claim_id: str, says: str) -> Claim:
        reader = self._reader
        source = reader.text(table, "from", path, Source.TRAIL.value)
        if source not in tuple(Source):
            known = [one.value for one in Source]
            hint = did_you_mean(source, known) or f"one of {', '.join(known)}"
            reader.fail(f"`{source}` holds no evidence", (*path, "from"), hint=hint)
        test = reader.table(table, "test", path)
        if not test:
            reader.fail(f"`{dotted((*path, 'test'))}` is missing", path)
        match Source(source):
            case Source.TRAIL:
                self._without(table, ("key",), path, source)
                query = self._query(table, path)
                return Claim(claim_id, says, Source.TRAIL, query, self._trail_test(test, (*path, "test")))
            case Source.VERIFICATION:
                self._without(table, ("key", "types", "where"), path, source)
                reader.allow(test, ("at_least",), (*path, "test"))
                count = reader.number(test, "at_least", (*path, "test"), least=1)
                return Claim(claim_id, says, Source.VERIFICATION, Query(tuple(AuditEventType)), Verified(count or 1))
            case state:
                self._without(table, ("types", "where"), path, source)
                key = reader.text(table, "key", path)
                condition = self._condition(key, test, (*path, "test"))
                return Claim(claim_id, says, state, Query((STATE_EVENTS[state],)), InForce(condition))

    def _without(self, table: Mapping[str, Any], keys: tuple[str, ...], path: Path, source: str) -> None:
        for key in keys:
            if key in table:
                self._reader.fail(f'`{key}` does not go with `from = "{source}"`', (*path, key))

    # --- queries and tests ------------------------------------------------------------------------

    def _query(self, table: Mapping[str, Any], path: Path) -> Query:
        reader = self._reader
        written = reader.texts(table, "types", path)
        if not written:
            reader.fail(f"`{dotted((*path, 'types'))}` is missing", path, hint="a list of event types")
        for name in written:
            if name not in list(AuditEventType):
                hint = did_you_mean(name, AuditEventType) or "`symbi audit show` prints the types of events"
                reader.fail(f"unknown event type `{name}`", (*path, "types"), hint=hint)
        return Query(tuple(AuditEventType(name) for name in written), self._where(table, "where", path))

    def _where(self, table: Mapping[str, Any], key: str, path: Path) -> tuple[Condition, ...]:
        reader = self._reader
        conditions = []
        for name, value in reader.table(table, key, path).items():
            if name.partition(".")[0] not in ROOTS:
                reader.fail(
                    f"`{name}` is no path into an event", (*path, key, name), hint=f"it begins with {', '.join(ROOTS)}"
                )
            conditions.append(self._condition(name, value, (*path, key, name)))
        return tuple(conditions)

    def _condition(self, name: str, value: object, path: Path) -> Condition:
        """A value, a list of them, or a table of what holds."""
        reader = self._reader
        if _PATH.fullmatch(name) is None:
            reader.fail(f"`{name}` is no path", path, hint="names joined by dots; `*` stands for every element")
        if not isinstance(value, dict):
            return Condition(name, one_of=self._scalars(value, path))
        reader.allow(value, _CONDITION_KEYS, path)
        if not value:
            reader.fail(f"`{name}` asks for nothing", path, hint=f"some of {', '.join(_CONDITION_KEYS)}")
        present = value.get("present")
        if present is not None and not isinstance(present, bool):
            reader.fail("`present` is true or false", (*path, "present"))
        return Condition(
            name,
            one_of=self._scalars(value["is"], (*path, "is")) if "is" in value else (),
            none_of=self._scalars(value["not"], (*path, "not")) if "not" in value else (),
            like=reader.text(value, "like", path, ""),
            present=present,
            at_least=reader.number(value, "at_least", path, least=0),
            at_most=reader.number(value, "at_most", path, least=0),
        )

    def _scalars(self, value: object, path: Path) -> tuple[Scalar, ...]:
        listed = value if isinstance(value, list) else [value]
        if not listed or not all(isinstance(one, str) or type(one) in {bool, int} for one in listed):
            self._reader.fail(f"`{dotted(path)}` must be a text, a whole number, true, false, or a list of them", path)
        return tuple(listed)

    def _trail_test(self, test: Mapping[str, Any], path: Path) -> Test:
        reader = self._reader
        reader.allow(test, (*_TRAIL_TESTS, "each_days"), path)
        kinds = [key for key in _TRAIL_TESTS if key in test]
        if len(kinds) != 1:
            reader.fail(f"`{dotted(path)}` has one of {', '.join(_TRAIL_TESTS)}", path)
        kind = kinds[0]
        if "each_days" in test and kind != "at_least":
            reader.fail("`each_days` goes with `at_least`", (*path, "each_days"))
        match kind:
            case "at_least":
                count = reader.number(test, "at_least", path, least=1) or 1
                return AtLeast(count, reader.number(test, "each_days", path, least=1, default=None) or 0)
            case "none":
                if test["none"] is not True:
                    reader.fail("`none` is true, or is not given", (*path, "none"))
                return NoneOfThem()
            case "every":
                conditions = self._where(test, "every", path)
                if not conditions:
                    reader.fail("`every` names what holds for each event", (*path, "every"))
                return Every(conditions)
            case _:
                return self._pair(reader.table(test, kind, path), (*path, kind), after=kind == "followed_by")

    def _pair(self, table: Mapping[str, Any], path: Path, *, after: bool) -> Paired:
        reader = self._reader
        reader.allow(table, ("types", "where", "same", "within_s", "differ"), path)
        same = reader.texts(table, "same", path)
        for one in same:
            self._own_path(one, (*path, "same"))
        differ = reader.texts(table, "differ", path)
        if differ and len(differ) != 2:  # noqa: PLR2004 - one path for each of the two events
            reader.fail("`differ` has two paths: in the event, and in its partner", (*path, "differ"))
        for one in differ:
            self._own_path(one, (*path, "differ"))
        if not same:
            hint = "what tells that the two belong together, such as `details.effect_id`"
            reader.fail(f"`{dotted((*path, 'same'))}` is missing", path, hint=hint)
        within_s = reader.number(table, "within_s", path, least=1) or 0
        if within_s > MAX_WITHIN_S:
            reader.fail(f"`within_s` is at most {MAX_WITHIN_S}", (*path, "within_s"))
        pair = (differ[0], differ[1]) if differ else None
        return Paired(after, self._query(table, path), same, within_s, pair)

    def _own_path(self, name: str, path: Path) -> None:
        if _PATH.fullmatch(name) is None or "*" in name or name.partition(".")[0] not in ROOTS:
            hint = f"it begins with {', '.join(ROOTS)}, and has no `*`"
            self._reader.fail(f"`{name}` is no path to one value of an event", path, hint=hint)
