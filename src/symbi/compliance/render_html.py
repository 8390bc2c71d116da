"""A report as one HTML file: nothing in it is loaded from elsewhere, nothing runs, and all values stand escaped."""

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from symbi.compliance.evaluate import Status
from symbi.compliance.gauges import Finding
from symbi.compliance.library import NAMES
from symbi.compliance.markup import Markup, tag
from symbi.compliance.report import content_hash, span, verdict

SIGNS: Final[Mapping[str, str]] = {
    Status.MET.value: "\u2713",
    Status.NOT_MET.value: "\u2717",
    Status.NOT_APPLICABLE.value: "\u2013",
    Status.UNKNOWN.value: "?",
}
CLASSES: Final[Mapping[str, str]] = {
    Status.MET.value: "met",
    Status.NOT_MET.value: "not-met",
    Status.NOT_APPLICABLE.value: "not-applicable",
    Status.UNKNOWN.value: "unknown",
    Finding.HOLDS.value: "met",
    Finding.CONTRADICTED.value: "not-met",
    Finding.NOT_EVIDENCED.value: "not-met",
}
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_html(document: Mapping[str, Any]) -> bytes:
    """The document as a page to read and to print."""
    framework = document["framework"]
    title = f"{framework['title']}: compliance report"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(_style())),
    )
    body = tag(
        "body",
        tag(
            "main",
            _top(document),
            _overview(document),
            tag("h2", "Controls and their evidence"),
            [_control(control) for control in document["controls"]],
            _checking(document),
            tag("footer", tag("p", document["statement"], class_="small soft")),
        ),
    )
    return b"<!DOCTYPE html>\n" + tag("html", head, body, lang="en").text.encode() + b"\n"


def _style() -> str:
    return resources.files("symbi.compliance").joinpath("style.css").read_text("utf-8")


def _top(document: Mapping[str, Any]) -> Markup:
    """Which report, what comes of it, and what it is not."""
    framework, trail = document["framework"], document["trail"]
    if trail["verified"]:
        state = f"{trail['events']} events, every one verified before this report was made"
    else:
        state = "empty: there is no event at all"
    facts = [
        ("Period", span(document)),
        ("Events in the period", str(document["period"]["events"])),
        ("Audit trail", state),
        ("Rests on", framework["citation"]),
        ("Report", tag("span", content_hash(document), class_="mono")),
    ]
    tiles = [
        tag("li", tag("b", count), f"{SIGNS[status]} {status}", class_=CLASSES[status])
        for status, count in document["summary"].items()
    ]
    return tag(
        "header",
        tag("p", "Compliance report", class_="eyebrow"),
        tag("h1", framework["title"]),
        tag("p", framework["about"], class_="soft"),
        tag("p", tag("strong", verdict(document)), class_="verdict"),
        tag("ul", tiles, class_="tiles"),
        tag("p", document["statement"], class_="statement small"),
        tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in facts], class_="facts"),
    )


def _overview(document: Mapping[str, Any]) -> Markup:
    """Every control in a line, those that are not met first among what a person should look at."""
    rows = [
        tag(
            "tr",
            tag("td", tag("a", control["id"], href=f"#{_anchor(control)}"), class_="id mono"),
            tag("td", control["title"], tag("div", _coded(control["reason"]), class_="small soft")),
            tag("td", _badge(control["status"])),
        )
        for control in document["controls"]
    ]
    head = tag("tr", tag("th", "control"), tag("th", "title, and why"), tag("th", "status"))
    return tag(
        "section", tag("h2", "At a glance"), tag("table", tag("thead", head), tag("tbody", rows), class_="overview")
    )


def _badge(status: str) -> Markup:
    return tag("span", f"{SIGNS[status]} {status}", class_=f"badge {CLASSES[status]}")


def _anchor(control: Mapping[str, Any]) -> str:
    return f"control-{control['id']}"


def _control(control: Mapping[str, Any]) -> Markup:
    parts: list[Markup | None] = [
        tag("p", control["question"], class_="question"),
        tag("p", _coded(control["reason"]), class_="reason"),
    ]
    if control["applies"] is not None:
        parts += [
            tag("p", "Whether it applies", class_="part"),
            tag("ul", _claim(control["applies"], asks=True), class_="evidence"),
        ]
    if control["evidence"]:
        evidence = [_claim(claim) for claim in control["evidence"]]
        parts += [tag("p", "Evidence", class_="part"), tag("ul", evidence, class_="evidence")]
    if control["cannot_know"]:
        unknown = tag("ul", [tag("li", one) for one in control["cannot_know"]], class_="plain small")
        parts += [tag("p", "What cannot be known from here", class_="part"), unknown]
    heading = tag(
        "div",
        tag("h3", tag("span", control["id"], class_="mono"), "  ", control["title"]),
        tag("div", control["citation"], class_="small soft"),
    )
    header = tag("header", heading, _badge(control["status"]))
    return tag("section", header, parts, class_=f"control {CLASSES[control['status']]}", id=_anchor(control))


def _claim(claim: Mapping[str, Any], *, asks: bool = False) -> Markup:
    """A piece of evidence; one that only `asks` whether the control applies is no fault where it does not hold."""
    finding = tag("div", claim["finding"], class_="finding")
    told = tag(
        "div",
        tag("div", claim["says"]),
        tag("div", _coded(claim["reason"]), class_="small"),
        tag("div", "Test: ", _coded(claim["test"]), class_="small soft"),
    )
    return tag(
        "li",
        tag("div", finding, told, class_="line"),
        _events("contradicting", claim["against"]),
        _events("supporting", claim["bearing"]),
        class_=CLASSES[Status.NOT_APPLICABLE.value if asks else claim["finding"]],
    )


def _coded(text: str) -> list[Markup | str]:
    """A text in which what stands between backticks is code."""
    return [tag("code", part) if number % 2 else part for number, part in enumerate(text.split("`"))]


def _events(kind: str, found: Mapping[str, Any]) -> Markup | None:
    """Some of the events behind a finding, with their proofs; nothing where there are none."""
    samples = found["samples"]
    if not samples:
        return None
    rows = [
        tag(
            "tr",
            tag("td", one["sequence"], class_="number mono"),
            tag("td", one["time"][:19].replace("T", " "), tag("div", one["event_id"], class_="mono soft")),
            tag("td", tag("code", one["type"]), tag("div", one["agent"], class_="soft")),
            tag("td", one["summary"]),
        )
        for one in samples
    ]
    head = tag("tr", [tag("th", name) for name in ("no.", "time (UTC), id", "type, agent", "what it says")])
    proofs = [
        tag(
            "p",
            f"event {one['sequence']}: leaf {one['leaf']}; path {' '.join(one['proof']) or 'empty'}",
            class_="proof mono",
        )
        for one in samples
    ]
    return tag(
        "details",
        tag("summary", f"{len(samples)} of {found['count']} {kind} events"),
        tag("table", tag("thead", head), tag("tbody", rows), class_="samples"),
        tag("details", tag("summary", "inclusion proofs"), proofs, class_="proofs"),
    )


def _checking(document: Mapping[str, Any]) -> Markup:
    """How somebody else checks the report, and against what."""
    trail, framework = document["trail"], document["framework"]
    named = framework["id"] if framework["id"] in NAMES else f"{framework['id']}.toml"
    parts: list[Markup] = [tag("h2", "How to check this report")]
    if not trail["verified"]:
        parts.append(tag("p", "The trail is empty, so there is nothing that could be proved of it."))
        return tag("section", parts)
    parts += [
        tag(
            "p",
            "Each event that is shown stands in the trail that the signed checkpoint below is about: its inclusion proof "
            "(RFC 9162) leads from the hash of the event to the root of the checkpoint. The same report as JSON is what a "
            "program checks, its hash, checkpoint, proofs and events against the trail; both are written at once:",
        ),
        tag(
            "pre",
            f"symbi compliance report {named} --out report.html --out report.json\nsymbi compliance verify report.json",
        ),
        tag("p", "Checkpoint, a signed note:", class_="part"),
        tag("pre", trail["checkpoint"]),
        tag("p", "Keys that were trusted; compare them with those that you know:", class_="part"),
        tag("pre", "\n".join(f"{key_id}  Ed25519 {key}" for key_id, key in trail["keys"].items())),
        tag("p", "SHA-256 of the framework file: ", tag("span", framework["sha256"], class_="mono"), class_="small"),
        tag(
            "p",
            "SHA-256 of this report as JSON, which stands in the trail: ",
            tag("span", content_hash(document), class_="mono"),
            class_="small",
        ),
    ]
    return tag("section", parts)
