"""One report in three formats: they say the same, show nothing that was not escaped, and can be made again to the byte."""

import html.parser
import json
import re

import pytest

from symbi.compliance.evaluate import Status
from symbi.compliance.library import NAMES, framework_named
from symbi.compliance.parse import parse_framework
from symbi.compliance.period import period_of
from symbi.compliance.recorded import facts_of_report
from symbi.compliance.render import RENDERERS, Format
from symbi.compliance.render_html import render_html
from symbi.compliance.render_md import plain, render_md
from symbi.compliance.report import MAX_SUMMARY_CHARS, content_hash, make_report, render_json
from symbi.crypto.merkle import verify_inclusion
from symbi.errors import ChainBroken, InputError

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
HOSTILE_MD = "[x](javascript:alert(1)) `|` ![y](http://evil.example/p.png) <b>"


class Page(html.parser.HTMLParser):
    """What a browser would see: tags with attributes, texts, and the words of each badge by control."""

    def __init__(self, data):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.statuses, self.findings = [], [], {}, {}
        self._control = self._reads = None
        self.feed(data.decode())

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "section" and given.get("id", "").startswith("control-"):
            self._control = given["id"].removeprefix("control-")
        words = given.get("class", "").split()
        self._reads = "badge" if "badge" in words else "finding" if "finding" in words else None

    def handle_data(self, data):
        self.texts.append(data)
        if self._control and self._reads == "badge":
            self.statuses[self._control] = data[2:]
        elif self._control and self._reads == "finding":
            self.findings.setdefault(self._control, []).append(data)
        self._reads = None


def md_statuses(data):
    rows = re.findall(r"^\| (.+?) \| .+? \| ([a-z ]+) \| ", data.decode(), re.MULTILINE)
    return {name.replace("\\", ""): status for name, status in rows if status in tuple(Status)}


def findings_of(document):
    return {
        control["id"]: [
            one["finding"] for one in ([control["applies"]] if control["applies"] else []) + control["evidence"]
        ]
        for control in document["controls"]
    }


@pytest.mark.parametrize("name", NAMES)
def test_html_markdown_and_json_say_the_same(build, drafts, name):
    document = make_report(framework_named(name), build(drafts).trail)
    read = json.loads(render_json(document))
    statuses = {control["id"]: control["status"] for control in read["controls"]}
    page, md = Page(render_html(document)), render_md(document).decode()
    assert page.statuses == statuses == md_statuses(md.encode())
    wanted = {control: found for control, found in findings_of(read).items() if found}
    assert page.findings == wanted
    assert re.findall(r"^- \*\*([a-z ]+)\*\*: ", md, re.MULTILINE) == [
        one for found in wanted.values() for one in found
    ]
    for status, count in read["summary"].items():
        assert f"| {status} | {count} |" in md
        assert list(statuses.values()).count(status) == count
    assert {Status.MET.value, Status.NOT_MET.value, Status.NOT_APPLICABLE.value, Status.UNKNOWN.value} == set(
        statuses.values()
    )
    for text in ("".join(page.texts), md):
        assert content_hash(document) in text
        assert read["framework"]["sha256"] in text
    for words in (read["statement"], *(control["reason"] for control in read["controls"])):
        shown = words.replace("`", "")
        assert shown in "".join(page.texts)
    sequences = [
        str(sample["sequence"]) for c in read["controls"] for e in c["evidence"] for sample in e["bearing"]["samples"]
    ]
    assert sequences
    assert all(one in page.texts for one in sequences)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_trail_gives_the_same_report_to_the_byte(build, drafts, name):
    framework = framework_named(name)
    for render in RENDERERS.values():
        first, second = (render(make_report(framework, build(drafts).trail)) for _ in range(2))
        assert first == second


def test_each_event_that_is_shown_is_proved_against_the_one_checkpoint(build, drafts):
    built = build(drafts)
    document = make_report(framework_named("hipaa"), built.trail)
    shown = [
        sample
        for control in document["controls"]
        for claim in control["evidence"]
        for kind in ("bearing", "against")
        for sample in claim[kind]["samples"]
    ]
    root = bytes.fromhex(document["trail"]["root"])
    size = len(built.events)
    assert len(shown) > 10
    for sample in shown:
        path = [bytes.fromhex(one) for one in sample["proof"]]
        assert verify_inclusion(bytes.fromhex(sample["leaf"]), sample["sequence"] - 1, size, path, root)
        assert sample["event_id"] == built.event_at(sample["sequence"]).event_id


def test_a_tree_that_does_not_lead_to_the_checkpoint_makes_no_report(build, drafts):
    built = build(drafts)
    other = build([*drafts[:-1], drafts[0]])
    built.trail.evidence._nodes = other.node
    with pytest.raises(ChainBroken, match="does not lead"):
        make_report(framework_named("hipaa"), built.trail)


def test_samples_are_bounded_and_counts_are_not(build, draft):
    many = [
        draft("decision.deny", code="policy.denied", policy_version="1", effect_id=f"e{n}", label="x")
        for n in range(200)
    ]
    document = make_report(framework_named("gdpr"), build(many).trail)
    (default,) = [one for one in document["controls"] if one["id"] == "art.25.2"]
    found = default["evidence"][0]["bearing"]
    assert found["count"] == 200
    assert [one["sequence"] for one in found["samples"]] == [2, 3, 4, 200, 201]


def hostile(draft, text):
    policies = [{"id": text, "file": text, "line": 1}]
    return [
        draft(
            "decision.deny", agent=text, run=text, action=text, resource=text, reason=text, verdict=text,
            policies=policies, policy_version=text, effect_id=text, label=text,
        ),
        draft("runtime.started", configuration={"mcp.tool_verification": text, "audit.storage": text}, version=text),
        draft("policy.changed", cause=text, version=text, previous=text, policies=2),
    ]  # fmt: skip


@pytest.mark.parametrize("text", [HOSTILE, HOSTILE_MD, "\u202e\x1b[31m\x00", "</style></title>", "a" * 5000])
@pytest.mark.parametrize("name", NAMES)
def test_what_an_event_says_is_text_and_nothing_else(build, draft, name, text):
    document = make_report(framework_named(name), build(hostile(draft, text)).trail)
    page = Page(render_html(document))
    allowed = {
        "html", "head", "meta", "title", "style", "body", "main", "header", "section", "footer", "h1", "h2", "h3", "p", "div",
        "span", "strong", "ul", "li", "b", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "a", "code", "pre",
        "details", "summary",
    }  # fmt: skip
    assert {tag for tag, _ in page.tags} <= allowed
    for tag, given in page.tags:
        assert not any(key.startswith("on") for key in given)
        assert tag != "a" or given["href"].startswith("#control-")
    policy = next(given["content"] for _, given in page.tags if given.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")
    if text == HOSTILE:
        assert any(HOSTILE in one for one in page.texts)
    md = render_md(document).decode()
    assert not re.search(r"<[a-zA-Z/!]|(?<!\\)[\[!]\S*\]\(|javascript:alert\(1\)\)", md)
    assert all("\x1b" not in one and "\u202e" not in one and "\x00" not in one for one in (md, *page.texts))
    assert all(len(s["summary"]) <= MAX_SUMMARY_CHARS + 1 for c in document["controls"] for e in c["evidence"] for s in e["bearing"]["samples"])  # fmt: skip


def test_a_framework_of_ones_own_is_text_too(build, drafts):
    text = f"""
[framework]
id = "own"
title = '{HOSTILE}'
citation = '{HOSTILE}'
about = '{HOSTILE_MD}'
[[controls]]
id = "A"
title = '{HOSTILE}'
citation = "x"
question = '{HOSTILE_MD}'
cannot_know = ['{HOSTILE}']
"""
    document = make_report(parse_framework("own.toml", text), build(drafts).trail)
    tags = {tag for tag, _ in Page(render_html(document)).tags}
    assert not tags & {"script", "img"}
    assert "<script" not in render_md(document).decode()


def test_an_address_in_markdown_is_no_link():
    """GitHub makes links of these by itself."""
    for address in ("www.evil.example/login", "WWW.evil.example", "https://evil.example", "a@evil.example"):
        assert not re.search(r"www\.|://|@", plain(f"see {address}"), re.IGNORECASE)


# --- periods ----------------------------------------------------------------------------------


def test_only_the_period_counts_and_what_was_in_force_as_it_began(build, drafts):
    built = build(drafts)
    begins, ends = built.events[5].timestamp, built.events[7].timestamp  # decision.allow and its outcome
    document = make_report(framework_named("hipaa"), built.trail, begins, ends)
    assert (document["period"]["first"], document["period"]["last"], document["period"]["events"]) == (6, 7, 2)
    statuses = {control["id"]: control["status"] for control in document["controls"]}
    assert statuses["312.a.1"] == "met"  # the configuration of before was in force
    assert statuses["308.a.5.ii.C"] == "not met"  # the refusal came later
    after = make_report(framework_named("hipaa"), built.trail, "2027-01-01T00:00:00.000000000Z")
    assert not any(control["evidenced"] for control in after["controls"])
    assert all(control["reason"].startswith("not evidenced") for control in after["controls"])


def test_what_was_in_force_before_the_runtime_ended_is_not_in_force_later(build, drafts, draft):
    built = build([*drafts, draft("run.started")])
    document = make_report(framework_named("hipaa"), built.trail, built.events[-1].timestamp)
    (access,) = [one for one in document["controls"] if one["id"] == "312.a.1"]
    assert [one["finding"] for one in access["evidence"]][:2] == ["not evidenced", "not evidenced"]


def test_a_partner_outside_of_the_period_is_one(build, drafts):
    built = build(drafts)
    (b,) = [e for e in built.events if e.event_type == "decision.allow"]
    document = make_report(framework_named("hipaa"), built.trail, b.timestamp, built.events[b.sequence].timestamp)
    (audit,) = [one for one in document["controls"] if one["id"] == "312.b"]
    assert [one["finding"] for one in audit["evidence"]] == ["holds"] * 4


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, ("", "")),
        ("2026-03-01", "2026-03-31", ("2026-03-01T00:00:00.000000000Z", "2026-04-01T00:00:00.000000000Z")),
        ("2026-03-01", "2026-03-01", ("2026-03-01T00:00:00.000000000Z", "2026-03-02T00:00:00.000000000Z")),
        ("2026-03-01T01:00:00.5+01:00", None, ("2026-03-01T00:00:00.500000000Z", "")),
        (None, "2026-03-01T00:00:00Z", ("", "2026-03-01T00:00:00.000000000Z")),
    ],
)
def test_days_are_of_utc_and_the_last_one_is_in_it(since, until, expected):
    assert period_of(since, until) == expected


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        ("", None, "`` is no time"),
        ("yesterday", None, "`yesterday` is no time"),
        ("2026-02-30", None, "`2026-02-30` is no time"),
        ("2026-03-01T00:00:00", None, "does not say in which time zone"),
        ("1969-12-31", None, "before 1970"),
        (None, "9999-12-31", "is no time"),
        ("2026-04-01", "2026-03-31", "is empty"),
        ("2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", "is empty"),
    ],
)
def test_what_is_no_period_is_refused(since, until, words):
    with pytest.raises(InputError, match=re.escape(words)):
        period_of(since, until)


def test_what_the_trail_is_told_fits_the_report(build, drafts):
    document = make_report(framework_named("sox"), build(drafts).trail)
    facts = facts_of_report(document, [(Format.JSON, render_json(document)), (Format.HTML, render_html(document))])
    assert facts["files"][0]["sha256"] == facts["report_sha256"] == content_hash(document)
    assert facts["met"] == document["summary"]["met"] > 0
    assert facts["size"] == len(drafts) + 1
