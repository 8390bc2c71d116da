"""A line for each event: whatever stands in it, one line, that steers no terminal and says what is sealed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from symbi.audit.event import AuditEventType
from symbi.cli.audit_lines import MAX_SUMMARY_CHARS, decisions_table, event_line, summary
from symbi.testing.trail import build_trail

EVENT = build_trail(1).parsed[1]
KNOWN = (
    "action", "resource", "verdict", "policies", "conditions", "arguments", "outcome", "duration_us", "result_bytes", "error",
    "code", "message", "reason", "lease", "input_labels", "file", "effects", "replayed", "from", "to", "event",
    "added_count", "tools", "version", "cause", "tool", "signed", "digest", "signing", "public_key", "configuration", "asks",
    "expires_at", "vote", "person", "people", "state", "grant_digest",
)  # fmt: skip
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.sampled_from(AuditEventType), st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=8), json_values, max_size=12),
    st.text(min_size=1, max_size=20),
)  # fmt: skip
def test_whatever_stands_in_an_event_it_is_one_printable_line(kind, details, agent):
    event = replace(EVENT, event_type=kind, details=details, agent_id=agent)
    line = event_line(event)
    assert line.isprintable()
    assert len(line) < MAX_SUMMARY_CHARS + 100
    assert Text.from_markup(event_line(event, coloured=True)).plain.rstrip() == line


@pytest.mark.parametrize(
    ("kind", "details", "told"),
    [
        ("decision.allow", {}, "write x: allowed by p (f:1)"),
        ("decision.allow", {"conditions": [{"kind": "redact"}, {"kind": "cap"}, {"kind": "cap"}]},
         "write x: allowed with redact, cap by p (f:1)"),
        ("decision.allow", {"verdict": "deny"}, "write x: let through though denied by p (f:1), for policies are not enforced"),
        ("decision.deny", {"code": "policy.denied", "reason": "forbidden by `p` (f:1)"}, "write x: denied by p (f:1)"),
        ("decision.deny", {"policies": [], "code": "policy.denied", "reason": "nothing permits it"},
         "write x: denied; policy.denied: nothing permits it"),
        ("effect.outcome", {"outcome": "failed", "duration_us": 999, "error": "limit.time", "message": "too long"},
         "write x: failed in 999 µs; limit.time: too long"),
        ("effect.outcome", {"outcome": "confirmed", "duration_us": 1_500_000, "result_bytes": 2_500_000},
         "write x: confirmed in 1.50 s, 2.5 MB"),
        ("agent.transition", {"from": "Ready", "to": "Running", "event": "Task Assigned"}, "Ready → Running (Task Assigned)"),
        ("compliance.reported", {"framework": "gdpr", "report_digest": "ab" * 32, "action": None, "resource": None},
         "framework: gdpr; report digest: abababababab…"),
    ],
)  # fmt: skip
def test_what_a_person_asks_first_comes_first(kind, details, told):
    common = {
        "action": "write",
        "resource": "File::x",
        "policies": [{"id": "p", "file": "f", "line": 1}],
        "verdict": "allow",
    }
    whole = details if kind == "compliance.reported" else common | details
    whole = {name: value for name, value in whole.items() if value is not None}
    assert summary(replace(EVENT, event_type=AuditEventType(kind), details=whole)) == told


def test_what_is_sealed_is_said_to_be():
    sealed = {"sealed": {"keys": ["k1"], "text": "AAAA"}}
    details = {
        "action": "InvokeTool::m.send",
        "resource": "Tool::m.send",
        "arguments": {"to": sealed},
        "verdict": "allow",
    }
    assert summary(replace(EVENT, details=details)) == "m.send → (sealed): allowed"
    asked = replace(EVENT, event_type=AuditEventType.APPROVAL_ASKED, details=details | {"arguments": sealed})
    assert "AAAA" not in summary(asked)


def test_what_steers_a_terminal_does_not():
    hostile = replace(EVENT, agent_id="\x1b[2Jeve", details={"action": "[red]x\x07", "resource": "a::b\r\nc"})
    assert "\x1b" not in event_line(hostile)
    assert "[red]x" in Text.from_markup(event_line(hostile, coloured=True)).plain


def test_decisions_are_counted_by_who_and_what():
    table = decisions_table([EVENT, EVENT, build_trail(0).parsed[0]])
    assert table.row_count == 1
