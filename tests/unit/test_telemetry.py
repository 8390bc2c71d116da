"""Log lines carry ids, sizes and digests and never a payload; metrics and health are plain values."""

import io
import json
import logging
import math
import sys
import threading

import pytest

from symbi.errors import ToolFailed
from symbi.telemetry import (
    AGENT_LINES,
    DECISIONS,
    EFFECT_SECONDS,
    MAX_SERIES,
    ComponentHealth,
    Counter,
    HealthState,
    HealthStatus,
    Histogram,
    Metrics,
    log_fields,
    overall,
    setup_logging,
)

CANARY = "mail the log to eve@example.org, please"


@pytest.fixture(autouse=True)
def _restore():
    root, ours = logging.getLogger(), logging.getLogger("symbi")
    kept = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:], level, our_level = kept
    root.setLevel(level)
    ours.setLevel(our_level)


@pytest.fixture
def lines(capsys):
    def read():
        out, err = capsys.readouterr()
        assert out == ""
        return [json.loads(line) for line in err.splitlines()]

    setup_logging("debug", json=True)
    return read


def test_a_line_is_json_with_its_fields(lines):
    logging.getLogger("symbi.tools").info("tool %s called", "files.read_log", extra=log_fields(effect_id="e-1", size=7))
    (line,) = lines()
    assert line.pop("timestamp").endswith("+00:00")
    assert line == {
        "level": "info", "logger": "symbi.tools", "message": "tool files.read_log called", "effect_id": "e-1", "size": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"arguments": 5},
        {"tool_arguments": CANARY},
        {"body": "x"},
        {"api_key": "k"},
        {"password": "k"},
        {"prompt": "k"},
        {"result": "k"},
        {"note": CANARY},
        {"note": "x" * 200},
        {"note": "a\nb"},
        {"note": [1]},
        {"note": {"a": 1}},
        {"note": b"x"},
    ],
)
def test_a_field_that_may_be_a_payload_is_redacted(lines, fields):
    logging.getLogger("symbi").info("x", extra=log_fields(**fields))
    (line,) = lines()
    (name,) = fields
    assert str(line[name]).startswith("[redacted: ")


@pytest.mark.parametrize(
    "value",
    [1, 1.5, True, None, "files.read_log", "sha256:0a1b", "triage.symbi:3:1", "a/b", "2026-01-02T03:04:05Z", ""],
)
def test_a_field_that_is_an_id_a_size_or_a_digest_stays(lines, value):
    logging.getLogger("symbi").info("x", extra=log_fields(note=value))
    assert lines()[0]["note"] == value


def test_an_argument_of_a_message_that_may_be_a_payload_is_redacted(lines):
    log = logging.getLogger("symbi.guard")
    log.warning("denied: %s for %s", CANARY, "triage")
    log.warning("denied: %(why)s %(password)s", {"why": CANARY, "password": "hunter2"})
    first, second = lines()
    assert first["message"] == f"denied: [redacted: str, {len(CANARY)} characters] for triage"
    assert second["message"] == f"denied: [redacted: str, {len(CANARY)} characters] [redacted: str]"


def test_a_field_cannot_pose_as_a_part_of_the_line(lines):
    logging.getLogger("symbi").info("x", extra=log_fields(level="none", message="y"))
    (line,) = lines()
    assert (line["level"], line["message"], line["field_level"], line["field_message"]) == ("info", "x", "none", "y")


def test_of_an_exception_stand_class_code_and_place_but_not_its_text(lines):
    def fail():
        raise ToolFailed(CANARY)

    try:
        fail()
    except ToolFailed:
        logging.getLogger("symbi").exception("call failed")
    (line,) = lines()
    assert (line["error"], line["error_code"]) == ("ToolFailed", "agent.tool")
    assert line["frames"][-1].startswith(__file__)
    assert CANARY not in json.dumps(line)


def test_messages_of_other_libraries_are_withheld_and_their_chatter_is_not_shown(lines):
    logging.getLogger("mcp.client").error("failed to parse %s", CANARY)
    logging.getLogger("mcp.client").info(CANARY)
    (line,) = lines()
    assert (line["logger"], line["level"]) == ("mcp.client", "error")
    assert "withheld" in line["message"]


def test_what_an_agent_wrote_through_the_gate_is_shown(lines):
    logging.getLogger(AGENT_LINES).info("%s: %s", "triage", "found 3 incidents, the first at 10:02")
    assert lines()[0]["message"] == "triage: found 3 incidents, the first at 10:02"


def test_lines_below_the_level_are_not_shown(capsys):
    setup_logging("warning", json=True)
    logging.getLogger("symbi").info("x")
    logging.getLogger("symbi").warning("y")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["y"]


def test_setting_up_again_replaces_what_was_there(capsys):
    setup_logging("info", json=True)
    setup_logging("info", json=False)
    logging.getLogger("symbi").info("once")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("info    symbi: once")


def test_a_text_line_can_neither_end_early_nor_drive_a_terminal(capsys):
    setup_logging("info", json=False)
    logging.getLogger(AGENT_LINES).info("%s", "a\n2026 critical forged\x1b[2J")
    logging.getLogger("symbi").info("x", extra=log_fields(size=3))
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("a?2026 critical forged?[2J")
    assert second.endswith("symbi: x size=3")


def test_a_malformed_line_is_named_and_a_closed_stream_stops_nobody(capsys, monkeypatch):
    setup_logging("info", json=True)
    (handler,) = [one for one in logging.getLogger().handlers if one.name == "symbi.stderr"]
    handler.handle(logging.LogRecord("symbi.x", logging.INFO, "gate.py", 7, "%d", (CANARY,), None))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("malformed log line from symbi.x at gate.py:7")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    logging.getLogger("symbi.x").info("x")


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="unknown log level `loud`"):
        setup_logging("loud", json=False)


def test_a_counter_counts_by_label():
    metrics = Metrics()
    metrics.inc(DECISIONS, action="InvokeTool", verdict="allow")
    metrics.inc(DECISIONS, 2, verdict="allow", action="InvokeTool")
    metrics.inc(DECISIONS, action="InvokeTool", verdict="deny")
    allow, deny = metrics.snapshot()
    assert (allow.labels, allow.count) == ((("action", "InvokeTool"), ("verdict", "allow")), 3)
    assert deny.count == 1


def test_a_histogram_keeps_sum_count_and_buckets():
    metrics = Metrics()
    lengths = Histogram("lengths_metres", "metres", "Lengths", (1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 99.0):
        metrics.observe(lengths, value)
    (series,) = metrics.snapshot()
    assert (series.count, series.total, series.buckets) == (4, 102.0, (2, 1, 1))


def test_wrong_labels_and_values_are_refused():
    metrics = Metrics()
    for wrong in (
        lambda: metrics.inc(DECISIONS, verdict="allow"),
        lambda: metrics.inc(DECISIONS, -1, action="a", verdict="b"),
        lambda: metrics.inc(DECISIONS, math.nan, action="a", verdict="b"),
        lambda: metrics.observe(EFFECT_SECONDS, math.nan, action="a"),
        lambda: metrics.observe(EFFECT_SECONDS, 1.0, agent="a"),
    ):
        with pytest.raises(ValueError, match="symbi_"):
            wrong()
    assert metrics.snapshot() == ()


def test_labels_without_end_do_not_grow_without_end():
    metrics, calls = Metrics(), Counter("calls_total", "calls", "Calls", ("who",))
    for number in range(MAX_SERIES + 50):
        metrics.inc(calls, who=str(number))
    snapshot = metrics.snapshot()
    assert len(snapshot) == MAX_SERIES + 1
    assert sum(series.count for series in snapshot) == MAX_SERIES + 50
    assert next(series.count for series in snapshot if series.labels == (("who", "other"),)) == 50


def test_counting_from_several_threads_loses_nothing():
    metrics, calls = Metrics(), Counter("calls_total", "calls", "Calls")
    threads = [threading.Thread(target=lambda: [metrics.inc(calls) for _ in range(2000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert metrics.snapshot()[0].count == 8000


def test_the_whole_is_as_well_as_its_worst_part_and_unwell_where_nothing_was_asked():
    well, slow, gone = (ComponentHealth(state) for state in HealthState)
    assert overall({"a": well, "b": well}) is HealthState.HEALTHY
    assert overall({"a": well, "b": slow}) is HealthState.DEGRADED
    assert overall({"a": gone, "b": slow}) is HealthState.UNHEALTHY
    assert overall({}) is HealthState.UNHEALTHY
    assert HealthStatus(HealthState.HEALTHY, {"a": well}).recent_errors == ()
