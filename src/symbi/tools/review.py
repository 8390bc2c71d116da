"""What of a tool is covered by our own digest, how two definitions differ, and what follows from what a person said.

The digest covers the whole definition: what SchemaPin signs (name, title, description, annotations, schemas), and beside
that `_meta` without the entry of SchemaPin, which is judged by itself, and every further member such as `icons`. Those two stand in it as text of
sorted JSON, so that content which SchemaPin cannot sign unambiguously is covered all the same.

It is pure: values in, values out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, zip_longest
from typing import Final, cast

from symbi.errors import InputError, PinMismatch, SignatureInvalid, VerificationError
from symbi.tools.link import ServerLink
from symbi.tools.lookalike import is_bidi, is_hidden
from symbi.tools.port import Review, ReviewKind, ReviewState, ToolDefinition
from symbi.tools.schemapin import MAX_DEFINITION_BYTES, META_KEY, canonical_definition, canonical_json, digest_of
from symbi.tools.screen import Finding, Severity
from symbi.tools.text import cut, shown_name
from symbi.types import JsonValue

MAX_CHANGES: Final = 64  # of two definitions that are shown
MAX_VALUE_CHARS: Final = 600  # of one side of a change
MAX_WHOLE_CHARS: Final = 16 * MAX_DEFINITION_BYTES  # likewise of one that is shown whole: more than it can have
MAX_PLACE_CHARS: Final = 500  # of the place of a change; a name that goes beyond it is shown by itself
CONTEXT_CHARS: Final = 40  # of what stayed the same around a change within a text
MAX_DEPTH: Final = 64  # below which values are compared as a whole
NOTHING: Final = "(nothing)"
"""What stands for the side of a change that is not there."""

REVOKED_KEY: Final = "verify.key_revoked"
"""Code of a tool that is signed with a key that the operator has revoked."""
REVOKED_TOOL: Final = "verify.tool_revoked"
"""Code of a tool that the operator has revoked."""
REJECTED: Final = "verify.rejected"
"""Code of a definition that a person has rejected."""
_AGAIN: Final = "was rejected as it was before, and nobody has looked at what it is now"
HELD: Final = "verify.held"
"""Code of a tool that was never accepted, and that a person has to look at first."""


def covered_definition(definition: ToolDefinition) -> bytes:
    """All of a definition that a digest covers, in one form.

    Raises:
        InputError: It has no canonical form, is too large, or holds what is not JSON.
    """
    document = cast("dict[str, JsonValue]", json.loads(canonical_definition(definition)))
    meta = {name: value for name, value in definition.meta.items() if name != META_KEY}
    for name, value in (("_meta", meta), ("_rest", definition.rest)):
        if value:
            document[name] = _text_of(value, name)
    covered = canonical_json(document)
    if len(covered) > MAX_DEFINITION_BYTES:
        msg = f"the definition of tool `{shown_name(definition.name)}` has {len(covered)} bytes; {MAX_DEFINITION_BYTES} are allowed"
        raise InputError(msg, code="tool.definition")
    return covered


def _text_of(value: object, name: str) -> str:
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError):
        msg = f"`{name}` of a definition is not JSON"
        raise InputError(msg, code="tool.definition") from None


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError


def parse_covered(server: str, text: str) -> ToolDefinition:
    """The definition, without its signature, that `covered_definition` made a text of.

    Raises:
        InputError: It is none.
    """
    try:
        document = json.loads(text)
        return ToolDefinition(
            server=server,
            name=document["name"],
            description=document["description"],
            input_schema=document["inputSchema"],
            output_schema=document.get("outputSchema"),
            title=document.get("title"),
            annotations=document.get("annotations", {}),
            meta=json.loads(document.get("_meta", "{}")),
            rest=json.loads(document.get("_rest", "{}")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        msg = f"what is kept of a tool of `{shown_name(server)}` is no definition"
        raise InputError(msg, code="tool.definition") from None


def signed_digest(covered: str) -> str:
    """SHA-256 (hex) of what of a covered definition SchemaPin signs.

    Raises:
        InputError: It is none.
    """
    return digest_of(canonical_definition(parse_covered("", covered)))


# --- the difference ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of two definitions; all three are one line, printable and bounded.

    Attributes:
        place: Where, e.g. `inputSchema.properties.path.description`.
        before: What stood there, `NOTHING` where nothing did.
        after: What stands there now, likewise.
    """

    place: str
    before: str
    after: str


def differences(before: str, after: str, *, whole: bool = False) -> tuple[Change, ...]:
    """How two covered definitions differ, by place; the last one counts the rest where there are more than `MAX_CHANGES`.

    Args:
        before: The text of what was accepted; empty where nothing was.
        after: The text of what is offered.
        whole: Nothing is cut: for who decides. A definition has at most `MAX_DEFINITION_BYTES`.
    """
    most = MAX_DEFINITION_BYTES if whole else MAX_CHANGES
    changes = _compare(_document(before), _document(after), "", 0, MAX_WHOLE_CHARS if whole else MAX_VALUE_CHARS)
    found = list(islice(changes, most + 1))
    if len(found) <= most:
        return tuple(found)
    return (*found[:MAX_CHANGES], Change("(more)", "further places differ", "they are not shown"))


def visible(text: str) -> str:
    """A text from outside, so that all of it is seen and none of it acts: what is hidden stands as its number."""
    return "".join(_visible(c) for c in text)


def _visible(c: str) -> str:
    if c == "\n":
        return "\\n"
    if c == "\t":
        return "\\t"
    return f"<U+{ord(c):04X}>" if is_bidi(c) or is_hidden(c) or not c.isprintable() else c


def _document(text: str) -> JsonValue:
    if not text:
        return None
    document = json.loads(text)
    for name in ("_meta", "_rest"):
        if isinstance(document, dict) and isinstance(document.get(name), str):
            document[name] = json.loads(document[name])
    return cast("JsonValue", document)


_ABSENT: Final = object()


def _compare(one: object, other: object, place: str, depth: int, most: int) -> Iterator[Change]:
    if type(one) is type(other) and one == other:
        return
    if isinstance(one, dict) and isinstance(other, dict) and depth < MAX_DEPTH:
        for key in sorted(one.keys() | other.keys()):
            at, left, right = f"{place}.{key}" if place else key, one.get(key, _ABSENT), other.get(key, _ABSENT)
            if len(visible(at)) > MAX_PLACE_CHARS and (type(left) is not type(right) or left != right):
                sides = (NOTHING if side is _ABSENT else _side(key, most) for side in (left, right))
                yield Change(_place(f"{place} (a name)".lstrip()), *sides)  # for which a place has no room
                at = f"{place}.…"
            yield from _compare(left, right, at, depth + 1, most)
    elif isinstance(one, list) and isinstance(other, list) and depth < MAX_DEPTH:
        for number, (left, right) in enumerate(zip_longest(one, other, fillvalue=_ABSENT)):
            yield from _compare(left, right, f"{place}[{number}]", depth + 1, most)
    elif isinstance(one, str) and isinstance(other, str):
        yield Change(_place(place), *_changed_text(one, other, most))
    elif (one is None or one is _ABSENT) and isinstance(other, dict) and other and depth < MAX_DEPTH:
        yield from _compare({}, other, place, depth, most)
    else:
        yield Change(_place(place), _side(one, most), _side(other, most))


def _place(place: str) -> str:
    return cut(visible(place), MAX_VALUE_CHARS) or "(the whole definition)"


def _side(value: object, most: int) -> str:
    if value is _ABSENT:
        return NOTHING
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return cut(visible(text[: most + 1]), most) if text else "(an empty text)"


def _changed_text(one: str, other: str, limit: int) -> tuple[str, str]:
    """Both texts from shortly before where they part to shortly behind where they meet again."""
    most = min(len(one), len(other))
    head = next((at for at in range(most) if one[at] != other[at]), most)
    tail = next((at for at in range(most - head) if one[-1 - at] != other[-1 - at]), most - head)
    start = max(0, head - CONTEXT_CHARS)

    def part(text: str) -> str:
        end = min(len(text), len(text) - tail + CONTEXT_CHARS)
        shown = text[start:end]
        return (
            _side(("…" if start else "") + shown + ("…" if end < len(text) else ""), limit)
            if text
            else _side(text, limit)
        )

    return part(one), part(other)


# --- what a person said -----------------------------------------------------------------------------------------------


def admitted(link: ServerLink, known: Review | None, *, strict: bool, now: str) -> "Standing":
    """Whether a server that was found in a file may be connected.

    Args:
        link: The server.
        known: What there is of it.
        strict: The mode is strict.
        now: RFC 3339.
    """
    hint = f"`symbi tools discover {link.name}` shows it, and `--accept` lets it be connected"
    same = known is not None and known.digest == link.digest
    if known is not None and known.state is ReviewState.ACCEPTED and same:
        return Standing(None)
    state = ReviewState.WAITING if strict or known is not None else ReviewState.ACCEPTED
    reason = f"it was found in {visible(link.source)}"
    if known is not None and known.state in {ReviewState.REVOKED, ReviewState.REJECTED}:
        refused = known.state is ReviewState.REVOKED or same
        if refused:
            msg = f"tool server `{link.name}` was {known.state.value} on {known.since[:10]}"
            code = REJECTED if known.state is ReviewState.REJECTED else REVOKED_TOOL
            return Standing(PinMismatch(msg, code=code, hint=hint, server=link.name))
    elif known is not None and not same:
        reason = f"what {visible(link.source)} says of it has changed since {known.since[:10]}"
    put = None
    if known is None or not same:
        put = Review(
            ReviewKind.SERVER, link.name, state, link.digest, link.definition, cut(reason, MAX_VALUE_CHARS), now
        )
    if state is ReviewState.ACCEPTED:
        return Standing(None, put=put)
    msg = f"tool server `{link.name}` waits for somebody to accept it: {cut(reason, MAX_VALUE_CHARS)}"
    return Standing(PinMismatch(msg, code=HELD, hint=hint, server=link.name), put=put)


@dataclass(frozen=True, slots=True)
class Seen:
    """A tool as it was judged before anybody's word is asked for.

    Attributes:
        name: `server.tool`.
        digest: Of its covered definition.
        definition: That definition, as text.
        findings: What the screen found.
        error: Why it may not be called, or None.
        first: Nothing is pinned for it.
        strict: The mode is strict.
        reviewed: A person accepts it now.
    """

    name: str
    digest: str
    definition: str
    findings: Sequence[Finding]
    error: VerificationError | None
    first: bool
    strict: bool
    reviewed: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What follows.

    Attributes:
        error: Why it may not be called, or None.
        pins: The pin that was judged is to be kept.
        put: A review that is to be kept, or None.
        drop: The one that there is, is to be forgotten.
    """

    error: VerificationError | None
    pins: bool = True
    put: Review | None = None
    drop: bool = False


def stand(seen: Seen, review: Review | None, *, key_revoked: str, now: str) -> Standing:
    """Whether a tool may be called, after all that people have said of it.

    Args:
        seen: The tool.
        review: What there is of it.
        key_revoked: Since when the key that signs it is revoked; empty where it is not.
        now: RFC 3339.
    """
    if key_revoked:
        msg = f"tool `{seen.name}` is signed with a key that was revoked on {key_revoked[:10]}"
        hint = "have it signed with another key, then review it"
        return Standing(SignatureInvalid(msg, code=REVOKED_KEY, hint=hint, tool=seen.name), pins=False)
    if seen.error is not None and not isinstance(seen.error, PinMismatch):
        return Standing(seen.error)
    if seen.reviewed:
        return Standing(seen.error, drop=seen.error is None)
    hint = f"`symbi tools review {seen.name}` shows what it is"

    def kept(state: ReviewState, reason: str) -> Review:
        return Review(ReviewKind.TOOL, seen.name, state, seen.digest, seen.definition, reason, now)

    if review is not None and review.state is ReviewState.REVOKED:
        msg = f"tool `{seen.name}` was revoked on {review.since[:10]}"
        error = PinMismatch(msg, code=REVOKED_TOOL, hint=hint, tool=seen.name, seen=seen.digest)
        put = Review(
            ReviewKind.TOOL, seen.name, review.state, seen.digest, seen.definition, review.reason, review.since
        )
        return Standing(error, pins=False, put=None if put == review else put)
    if review is not None and review.state is ReviewState.REJECTED and review.digest == seen.digest:
        msg = f"tool `{seen.name}` as it is was rejected on {review.since[:10]}"
        return Standing(
            PinMismatch(msg, code=REJECTED, hint=hint, tool=seen.name, seen=seen.digest), pins=not seen.first
        )
    if seen.first and review is not None and (review.state is ReviewState.REJECTED or review.reason == _AGAIN):
        error = PinMismatch(f"tool `{seen.name}` {_AGAIN}", code=HELD, hint=hint, tool=seen.name, seen=seen.digest)
        waits = (review.state, review.digest) == (ReviewState.WAITING, seen.digest)
        return Standing(error, pins=False, put=None if waits else kept(ReviewState.WAITING, _AGAIN))
    if seen.error is not None:
        put = kept(ReviewState.WAITING, seen.error.message)
        waits = review is not None and replace(review, since=put.since) == put  # for the same reason: it names the key
        return Standing(seen.error, put=None if waits else put)
    severe = [one for one in seen.findings if one.severity is Severity.SEVERE]
    if seen.first and seen.strict and severe:
        msg = f"tool `{seen.name}` was never accepted, and at `{severe[0].place}` it {severe[0].reason}"
        error = PinMismatch(cut(msg, MAX_VALUE_CHARS), code=HELD, hint=hint, tool=seen.name, seen=seen.digest)
        waits = review is not None and review.digest == seen.digest
        return Standing(error, pins=False, put=None if waits else kept(ReviewState.WAITING, error.message))
    return Standing(None, drop=review is not None and review.state is ReviewState.WAITING)
