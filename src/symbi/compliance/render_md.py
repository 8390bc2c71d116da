"""A report as Markdown, for a repository or a ticket; all values stand escaped."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from symbi.compliance.report import content_hash, span, verdict

_WWW: Final = re.compile(r"(www)\.", re.IGNORECASE)
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")


def render_md(document: Mapping[str, Any]) -> bytes:
    """The document as Markdown (GitHub's), with inclusion proofs left to the JSON."""
    return ("\n".join(_lines(document)) + "\n").encode()


def plain(text: object) -> str:
    """A text that Markdown shows as it is, on one line."""
    shown = "".join(c if c.isprintable() else " " if c in "\t\n" else "\ufffd" for c in str(text))
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # An address becomes a link by itself where nothing stands between its parts.
    shown = _SPECIAL.sub(r"\\\1", shown).replace("://", ":&#47;/").replace("@", "&#64;")
    return _WWW.sub(r"\1&#46;", shown)


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    framework, trail = document["framework"], document["trail"]
    yield f"# {plain(framework['title'])}: compliance report"
    yield ""
    yield f"**{plain(verdict(document))}**"
    yield ""
    yield f"> {plain(document['statement'])}"
    yield ""
    yield plain(framework["about"])
    yield ""
    yield f"- period: {plain(span(document))}, events in it: {document['period']['events']}"
    yield f"- trail: {trail['events']} events, {'verified' if trail['verified'] else 'empty'}"
    yield f"- rests on: {plain(framework['citation'])}"
    yield f"- framework file: SHA-256 {framework['sha256']}"
    yield f"- report as JSON: SHA-256 {content_hash(document)}"
    yield ""
    yield "| status | controls |"
    yield "| --- | ---: |"
    for status, count in document["summary"].items():
        yield f"| {status} | {count} |"
    yield ""
    yield "| control | title | status | why |"
    yield "| --- | --- | --- | --- |"
    for control in document["controls"]:
        cells = (control["id"], control["title"], control["status"], control["reason"])
        yield f"| {' | '.join(plain(cell) for cell in cells)} |"
    for control in document["controls"]:
        yield from _control(control)
    if trail["verified"]:
        yield ""
        yield "## Checkpoint"
        yield ""
        yield from (f"    {line}" for line in trail["checkpoint"].splitlines())


def _control(control: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"## {plain(control['id'])}: {plain(control['title'])}"
    yield ""
    yield f"**{control['status']}**: {plain(control['reason'])}"
    yield ""
    yield f"{plain(control['citation'])}. {plain(control['question'])}"
    claims = [control["applies"]] if control["applies"] is not None else []
    for claim in (*claims, *control["evidence"]):
        yield ""
        yield f"- **{claim['finding']}**: {plain(claim['says'])} {plain(claim['reason'])}"
        yield f"  - test: {plain(claim['test'])}"
        for kind in ("against", "bearing"):
            yield from _events(kind, claim[kind])
    if control["cannot_know"]:
        yield ""
        yield "What cannot be known from here:"
        yield ""
        yield from (f"- {plain(one)}" for one in control["cannot_know"])


def _events(kind: str, found: Mapping[str, Any]) -> Iterator[str]:
    if not found["samples"]:
        return
    word = "contradicting" if kind == "against" else "supporting"
    yield f"  - {len(found['samples'])} of {found['count']} {word} events:"
    for one in found["samples"]:
        yield f"    - {one['sequence']}, {one['time'][:19]}Z, {plain(one['type'])}, {plain(one['agent'])}: {plain(one['summary'])}"
