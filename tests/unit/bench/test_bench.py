"""The harness, and each benchmark at a small scale: the shape of its rows, never its times."""

import io
import json
import os
import platform

import anyio
import pytest
from rich.console import Console

from symbi.bench import (
    BENCHMARKS,
    Measurement,
    Scale,
    Target,
    as_page,
    as_table,
    beside,
    choose,
    run_benchmarks,
    to_json,
)
from symbi.bench.machine import describe_file_system, describe_machine, resident_bytes
from symbi.bench.measure import latency, percentile, rate
from symbi.bench.population import _differences
from symbi.errors import InputError

COLUMNS = ["id", "metric", "unit", "value", "p50", "p95", "p99", "target", "met", "n", "method", "machine"]
MET = rate("AUD-4", "appends | all", 300, 10**9, unit="events/s", target=Target(100, at_least=True), method="a")
MISSED = latency(
    "POL-5", "decision", [1_000_000, 3_000_000], unit="ms", target=Target(2, at_least=False, note="ours"), method="b"
)
UNJUDGED = latency("POL-5", "other", [1], unit="us", judged="p50", target=None, method="c")


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.id)
def test_a_benchmark_gives_rows_of_the_published_shape(benchmark):
    rows = to_json(run_benchmarks([benchmark.id], scale=0.001))
    assert rows
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    for row in rows:
        assert list(row) == COLUMNS
        assert row["id"] == benchmark.id
        assert all(isinstance(row[name], str) and row[name] for name in ("metric", "unit", "method", "machine"))
        if row["value"] is None:  # it says why, and has no number and no verdict
            assert (row["n"], row["target"], row["met"]) == (0, None, None)
            assert "not installed" in row["method"]
            continue
        assert isinstance(row["value"], float)
        assert row["value"] > 0
        assert row["n"] > 0
        assert (row["target"] is None) == (row["met"] is None)
        points = [row[name] for name in ("p50", "p95", "p99")]
        assert points == [None] * 3 or (points == sorted(points) and row["value"] in points)
    assert len({row["metric"] for row in rows}) == len(rows)


def test_what_is_not_installed_is_missing_and_never_a_number(monkeypatch):
    monkeypatch.setattr(beside, "find_spec", lambda _name: None)
    rows = anyio.run(beside.beside_rate, 10)[1:] + anyio.run(beside.beside_time, Scale(0.001))
    assert [(row.value, row.n, row.target, row.met) for row in rows] == [(None, 0, None, None)] * 3
    page = as_page(rows, date="2026-01-01", version="0")
    assert page.count("| missing |") == 3
    assert "pykka is not installed" in page
    printed = io.StringIO()
    Console(file=printed, width=200).print(as_table(rows))
    assert printed.getvalue().count("missing") == 3


def test_benchmarks_run_in_their_own_order_whatever_the_order_of_the_request():
    ids = [benchmark.id for benchmark in BENCHMARKS]
    assert [benchmark.id for benchmark in choose()] == ids
    assert [benchmark.id for benchmark in choose(list(reversed(ids)))] == ids
    assert len(set(ids)) == len(ids)


def test_an_unknown_id_is_refused_with_a_suggestion():
    with pytest.raises(InputError, match="there is no benchmark `pol-5`; did you mean `POL-5`"):
        choose(["pol-5"])
    with pytest.raises(InputError, match="there is no benchmark `nothing`; there are "):
        choose(["nothing"])


@pytest.mark.parametrize("scale", [0, -1, 1.1, float("nan")])
def test_a_scale_out_of_range_is_refused(scale):
    with pytest.raises(InputError, match="the scale must be above 0 and at most 1"):
        run_benchmarks(scale=scale)


def test_progress_is_told_of_each_benchmark_before_it_runs():
    told = []
    run_benchmarks(["CRY-1"], scale=0.001, progress=lambda benchmark: told.append(benchmark.id))
    assert told == ["CRY-1"]


def test_percentiles_are_nearest_rank():
    ordered = list(range(1, 201))
    assert [percentile(ordered, percent) for percent in (50, 95, 99, 100)] == [100, 190, 198, 200]
    assert percentile([7.0], 50) == percentile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_a_latency_is_judged_by_its_percentile_and_a_rate_by_its_value():
    assert (MISSED.value, MISSED.p50, MISSED.met, MISSED.target) == (3.0, 1.0, False, "p99 < 2 ms (ours)")
    assert (MET.value, MET.p50, MET.met, MET.target) == (300.0, None, True, ">= 100 events/s")
    assert (UNJUDGED.met, UNJUDGED.target) == (None, None)


@pytest.mark.parametrize(
    ("target", "value", "met"),
    [
        (Target(2, at_least=False), 1.999, True),
        (Target(2, at_least=False), 2.0, False),
        (Target(2, at_least=True), 2.0, True),
        (Target(2, at_least=True), 1.999, False),
    ],
)
def test_a_target_is_met_on_its_own_side_only(target, value, met):
    assert target.met(value) is met


def test_a_scale_takes_a_part_but_never_nothing():
    assert [Scale(factor).of(1000, least=5) for factor in (1.0, 0.1, 0.001)] == [1000, 100, 5]
    assert Scale(0.001).of(3, least=5) == 3
    assert Scale(1.0).sizes(10, 100, 1000) == (10, 100, 1000)
    assert Scale(0.1).sizes(10, 100, 1000) == (10, 100)
    assert Scale(0.001).sizes(10, 100, 1000) == (10,)


def test_the_table_says_what_was_missed():
    out = io.StringIO()
    Console(file=out, width=200, force_terminal=False).print(as_table([MET, MISSED, UNJUDGED]))
    lines = out.getvalue().splitlines()
    assert any("appends | all" in line and "met" in line for line in lines)
    assert any("decision" in line and "MISSED" in line for line in lines)
    assert not any("other" in line and ("met" in line or "MISSED" in line) for line in lines)


def test_the_page_says_what_was_missed_when_where_and_how():
    rows = [Measurement(**{**row, "machine": "a machine"}) for row in to_json([MET, MISSED, UNJUDGED])]
    page = as_page(rows, date="2026-01-02", version="0.1.0")
    assert "on 2026-01-02, with version 0.1.0" in page
    assert "> a machine" in page
    assert "## AUD-4: " in page
    assert "| decision | 3 | 1 | 3 | 3 | ms | 2 | p99 < 2 ms (ours) | MISSED |" in page
    assert "Method: b; or: c." in page
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in table} == {10}


def test_the_machine_is_described_without_its_name(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name : Some CPU\n")
    line = describe_machine(tmp_path)
    assert line.startswith("Some CPU, ")
    assert "Python" in line
    assert "GiB" in line
    assert platform.node() not in line
    assert describe_machine(tmp_path / "missing").count(";") == 2


def test_what_a_process_takes_is_read_from_the_system(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "statm").write_text("900 70 5 1 0 80 0\n")
    assert resident_bytes(tmp_path) == 70 * os.sysconf("SC_PAGE_SIZE")


def test_totals_that_differ_are_said_one_by_one():
    assert _differences({"runs": (3, 3), "the pool": ("a", "a")}) == ""
    assert _differences({"runs": (2, 3), "events": (0, 1)}) == "runs: 2 instead of 3; events: 0 instead of 1"


def test_the_file_system_is_that_of_the_nearest_mount(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mounts").write_text(
        f"a / ext4 rw 0 0\nb {tmp_path} tmpfs rw 0 0\nc {tmp_path}-other xfs rw 0 0\n"
    )
    assert describe_file_system(tmp_path / "x", tmp_path) == "tmpfs"
    assert describe_file_system(tmp_path.parent, tmp_path) == "ext4"
    assert describe_file_system(tmp_path, tmp_path / "missing") == "an unknown file system"
