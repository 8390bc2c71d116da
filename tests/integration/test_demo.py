"""`symbi demo` from the command line: its report against a count by awk, its one denial, its trail, what it says to try."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from symbi.cli.demo import COMMANDS

ROOT = Path(__file__).parents[2]
COUNT = ROOT / "tests" / "data" / "count_log.awk"
STRANGER = "archive@collector.example"
ON_CALL = "oncall@example.com"
PLACEHOLDER = "/var/log/nginx/access.log"  # stands for any log in what the demo says to try
DENIED = 3
RIGHT_PAGE = "- runbook: runbooks/server-errors.md (Burst of server errors (5xx))"


def symbi(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "symbi.cli.main", *arguments], cwd=folder, capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip


def counted_by_awk(log: Path) -> set[str]:
    """What the log holds, counted without anything of ours."""
    done = subprocess.run(
        ["awk", "-f", str(COUNT), str(log)], env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    return set(done.stdout.splitlines())


def read_from_report(report: str) -> set[str]:
    """Every number of a report, in the words of `counted_by_awk`; fails on a line that is none of the report's."""
    found = set()
    lines = iter(report.strip().splitlines())
    assert next(lines) == "# Incident report"
    for line in lines:
        if not line:
            continue
        if m := re.fullmatch(r"- requests: (\d+) \(not understood: (\d+)\)", line):
            found |= {f"requests {m[1]}", f"unread {m[2]}"}
        elif m := re.fullmatch(r"- by status: (.*)", line):
            found |= {f"status {part.replace(':', '')}" for part in m[1].split(", ")}
        elif m := re.fullmatch(r"- server errors \(5xx\): (\d+)", line):
            found.add(f"failed {m[1]}")
        elif m := re.fullmatch(r"- burst of errors: (\d+) minutes, (\S+) to (\S+), most on (\S+) \((\d+)\)", line):
            found.add(f"burst {m[1]} {m[2]} {m[3]} {m[4]} {m[5]}")
        elif m := re.fullmatch(r"- scanner: (\S+), (\d+) of (\d+) requests not found", line):
            found.add(f"scanner {m[1]} {m[2]} {m[3]}")
        elif m := re.fullmatch(r"- slow endpoint: (\S+), ([\d.]+) s on average", line):
            found.add(f"slow {m[1]} {m[2]}")
        elif line.startswith("- runbook: "):
            assert line == RIGHT_PAGE
        else:
            assert line == "- burst of errors: none"
    return found


def common_log(path: Path) -> None:
    """A log in common format of two chunks, with what real logs have in them; made alike each time."""
    random = Random(20261121)
    clients = ["192.0.2.7", "198.51.100.20", "2001:db8::17", "::1", "host.example"]
    lines = []

    def add(client: str, at: int, request: str, status: int, size: str) -> None:
        stamp = f"21/Nov/2026:{10 + at // 60:02}:{at % 60:02}:{random.randrange(60):02} +0100"
        lines.append(f'{client} - - [{stamp}] "{request}" {status} {size}'.encode())

    for at in range(90):
        for _ in range(40):
            quoted = '/search?q=\\"two words\\"&n=1'
            target = random.choice(["/", "/a/b.html", "/api/items?id=4", quoted, "/%22", "/" + "x" * 40])
            status = random.choice([200] * 8 + [206, 301, 404, 500])
            size = "-" if status in (301, 404) else str(random.randrange(9, 99_999))
            add(random.choice(clients), at, f"{random.choice(['GET', 'POST'])} {target} HTTP/1.1", status, size)
        if at in (41, 42, 44):
            for _ in range(60):
                add("192.0.2.7", at, "POST /api/pay HTTP/1.1", 503, "0")
        if at % 9 == 0:
            for number in range(12):
                add("2001:db8:bad::1", at, f"HEAD /.env.{number} HTTP/1.0", 404, "-")
            # A handshake on the wrong port, a request that ends in a backslash, an empty one, and a user with a name.
            add("203.0.113.9", at, "\\x16\\x03\\x01\\x02", 400, "-")
            add("203.0.113.9", at, "GET /end\\\\", 400, "12")
            add("203.0.113.9", at, "", 408, "-")
            lines.append(
                f'198.51.100.3 - ada [21/Nov/2026:10:{at % 60:02}:00 +0100] "GET /mine HTTP/2.0" 200 5'.encode()
            )
            lines += [
                b"", b"not a line of a log", b"\xff\xfe\x00garbage\xc3", b'192.0.2.1 - - [no time] "GET / HTTP/1.1" 200 1',
                b'192.0.2.1 - - [21/Nov/2026:10:00:00 +0100] "GET /never ended', b"[]", b'"" 500 0',
                b'192.0.2.1 - - [21/Nov/2026:10:00:00 +0100] "GET /no-status HTTP/1.1" - 0', b" ", b"",
            ]  # fmt: skip
    path.write_bytes(b"\n".join(lines))  # and without a line feed at its end


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("demo") / "example"


@pytest.fixture(scope="module")
def demo(place):
    return symbi(place.parent, "demo", str(place))


@pytest.fixture(scope="module")
def other_log(tmp_path_factory):
    path = tmp_path_factory.mktemp("logs") / "other log.txt"
    common_log(path)
    return path


def test_the_demo_ends_well_and_verifies(demo, place):
    assert demo.returncode == 0, demo.stderr
    assert re.search(r"^verified: \d+ events, ", demo.stdout, re.MULTILINE)
    assert symbi(place, "audit", "verify").returncode == 0


def test_every_number_of_the_report_is_what_awk_counts(demo, place):
    report = (place / "reports" / "incident.md").read_text()
    assert report.strip() in demo.stdout
    assert report.count(RIGHT_PAGE) == 1  # of five pages
    found = read_from_report(report)
    assert found == counted_by_awk(place / "logs" / "access.log")
    kinds = {line.split()[0] for line in found}
    assert kinds == {"requests", "unread", "status", "failed", "burst", "scanner", "slow"}


def test_one_notification_is_denied_by_the_policy_that_is_named(demo, place):
    shown = symbi(place, "audit", "show", "--type", "decision.deny", "--json")
    denials = [json.loads(line) for line in shown.stdout.splitlines()]
    (denial,) = [d for d in denials if d["details"]["resource"] == "Tool::notify.send"]
    assert STRANGER in json.dumps(denial["details"]["arguments"])
    (policy,) = denial["details"]["policies"]
    named = (place / policy["file"]).read_text().splitlines()[policy["line"] - 1 :]
    assert any(f'@id("{policy["id"]}")' in line for line in named[:1])
    outbox = [json.loads(line) for line in (place / "state" / "outbox.jsonl").read_text().splitlines()]
    assert [message["to"] for message in outbox] == [ON_CALL]
    table = demo.stdout.partition("Decisions")[2]
    rows = [row for row in table.splitlines() if " deny " in row]
    assert len(rows) == 2, table  # the canary, and the stranger
    assert "no-untrusted-recipient" in rows[1]
    assert f"{policy['file']}:{policy['line']}" in table


def test_a_log_in_common_format_by_its_absolute_path_is_counted_as_awk_counts_it(demo, place, other_log):
    before = len((place / "state" / "outbox.jsonl").read_text().splitlines())
    done = symbi(place, "run", "triage.symbi", "--input", f"log={other_log}")
    assert done.returncode == 0, done.stderr
    expected = counted_by_awk(other_log)
    assert read_from_report(done.stdout) == expected
    assert {"unread 80", "burst 3 21/Nov/2026:10:41 21/Nov/2026:10:44 /api/pay 180"} <= expected
    assert any(line.startswith("scanner 2001:db8:bad::1 120 ") for line in expected)
    assert len((place / "state" / "outbox.jsonl").read_text().splitlines()) == before + 1  # nobody but the one on call
    assert symbi(place, "audit", "verify").returncode == 0


def test_what_the_demo_says_to_try_runs(demo, place, other_log):
    environment = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    for command in COMMANDS:
        assert command in demo.stdout
        run = subprocess.run(
            ["/bin/sh", "-c", command.replace(PLACEHOLDER, f"'{other_log}'")], cwd=place, env=environment,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert run.returncode == (DENIED if " explain " in command else 0), f"{command}: {run.stderr}"
        assert run.stdout
    assert any(PLACEHOLDER in command for command in COMMANDS)


def test_the_demo_touches_no_folder_that_is_there(demo, place):
    before = sorted(path.name for path in place.iterdir())
    again = symbi(place.parent, "demo", str(place))
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert sorted(path.name for path in place.iterdir()) == before


# --- for authors: what pins and manifests say of a call ---------------------------------------

MAIL = json.dumps({"to": ON_CALL, "subject": "s", "body": "see archive@collector.example"})
FLOW = """
@id("leaves") forbid (principal, action in Action::"InvokeTool", resource)
when { resource.effect == "send" && !context.confidentialSinks.isEmpty() } unless { context.grant.arguments };
@id("medium") forbid (principal, action in Action::"InvokeTool", resource)
when { resource.risk == "medium" && context.usage.calls > 4 };
@id("read-only") forbid (principal, action in Action::"InvokeTool", resource) unless { resource.recovery == "idempotent" };
"""
CASE = """
[[case]]
name = "the tool is as its manifest says"
principal = { agent = "log_triage" }
action = "InvokeTool::notify.send"
resource = { type = "Tool", id = "notify.send" }
expect = "deny"
policies = ["no-untrusted-recipient"]

[case.context]
arguments = { to = "oncall@example.com", subject = "SUBJECT", body = "see archive@collector.example" }
label = { integrity = "untrusted", confidentiality = "public" }
labels = { to = { integrity = "user", confidentiality = "public" } }
"""


@pytest.fixture
def authors(demo, place):
    """The folder of the demo, with further policies for a while."""
    assert demo.returncode == 0
    added = place / "policies" / "authors.cedar"
    added.write_text(FLOW)
    yield place
    added.unlink()


def explained(folder: Path, *more: str) -> tuple[int, list[str]]:
    """Exit code, and the policies that decide on a mail."""
    done = symbi(
        folder,
        "policy",
        "explain",
        "--agent",
        "log_triage",
        "--tool",
        "notify.send",
        "--arguments",
        MAIL,
        "--json",
        *more,
    )
    return done.returncode, [one["id"] for one in json.loads(done.stdout)["decided_by"]]


def test_explain_reads_what_the_manifest_says_of_the_tool(authors):
    assert explained(authors) == (0, ["notify-on-call"])
    assert explained(authors, "--untrusted", "to") == (DENIED, ["no-untrusted-recipient"])
    assert explained(authors, "--untrusted", "body") == (0, ["notify-on-call"])  # declared as plain
    assert explained(authors, "--context", '{"usage": {"calls": 5}}') == (DENIED, ["medium"])


def test_explain_holds_a_call_against_the_grant_of_its_task(authors, tmp_path):
    grant = tmp_path / "grant.json"
    asked = ("--confidential", "subject", "--grant", str(grant))
    assert explained(authors, "--confidential", "subject") == (DENIED, ["leaves"])
    grant.write_text(json.dumps({"notify.send": {"to": ON_CALL}}))
    assert explained(authors, *asked) == (0, ["notify-on-call"])
    grant.write_text(json.dumps({"notify.send": {"to": STRANGER}}))
    assert explained(authors, *asked) == (DENIED, ["leaves"])


@pytest.mark.parametrize(
    ("grant", "options", "words"),
    [
        ("{", ("--grant", "g.json"), "g.json:1:2: not JSON"),
        (
            '{"notify.sned": {}}',
            ("--grant", "g.json"),
            "names the unknown tool `notify.sned`; did you mean `notify.send`?",
        ),
        ('{"send": {}}', ("--grant", "g.json"), "`send`"),
        ("[]", ("--grant", "nowhere.json"), "cannot read"),
        ("[]", ("--untrusted", "bdy"), "`--untrusted bdy` names no argument that is given; did you mean `body`?"),
        ("[]", ("--confidential", "x"), "`--confidential x` names no argument that is given"),
        ("[]", ("--context", '{"tainted": []}'), "`--context` says `tainted` of a tool call"),
    ],
)
def test_explain_refuses_what_says_nothing_of_the_call(authors, grant, options, words):
    (authors / "g.json").write_text(grant)
    done = symbi(authors, "policy", "explain", "--agent", "a", "--tool", "notify.send", "--arguments", MAIL, *options)
    assert done.returncode == 2, done.stdout
    said = " ".join(done.stderr.split())
    assert all(part in said for part in words.split("; ")), said


def test_a_case_names_a_tool_that_is_known_without_its_attributes(demo, place, tmp_path):
    cases = tmp_path / "cases.toml"
    cases.write_text(CASE.replace("SUBJECT", "write to archive@collector.example"))
    assert symbi(place, "policy", "test", str(cases)).returncode == 0
    cases.write_text(CASE.replace("SUBJECT", "the report"))  # no address in it, and the body is declared as plain
    assert "got `allow`" in symbi(place, "policy", "test", str(cases)).stdout
