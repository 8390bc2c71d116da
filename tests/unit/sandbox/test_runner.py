"""What runs in a container, run here as a process: frames, limits on what it says, and what it is written in."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import symbi.sandbox.inside
from symbi.sandbox.runner import MAX_ARGUMENT_BYTES, MODULES, runner_command

COMMAND = runner_command(sys.executable)
SOURCES = sorted(Path(symbi.sandbox.inside.__file__).parent.glob("*.py"))
NONCE = "ab" * 16
REQUEST = {
    "code": "", "inputs": {}, "timeout_s": 10.0, "limits": {}, "env": [], "bounds": [1000, 100, 10],
    "most_printed": 100, "most_answer": 10_000,
}  # fmt: skip


def frame(what):
    data = json.dumps(what).encode()
    return b"%08x" % len(data) + data


def frames(data):
    while data:
        assert data[:32] == NONCE.encode()
        length = int(data[32:40], 16)
        yield json.loads(data[40 : 40 + length])
        data = data[40 + length :]


def run(**changes):
    given = frame({"nonce": NONCE}) + frame(REQUEST | changes)
    done = subprocess.run(COMMAND, input=given, capture_output=True, check=True, timeout=60)
    seen, answer = frames(done.stdout)
    assert {"uid", "status", "mounts", "interfaces"} <= set(seen)
    return answer


def told(**changes):
    answer = run(**changes)
    assert answer["kind"] == "told", answer
    return json.loads(answer["told"]), answer["stdout"]


def test_it_is_written_in_what_python_3_8_reads_and_needs_no_library():
    given = {f"symbi.sandbox.inside{name}" for name in ["", *(f".{name}" for name in MODULES)]}
    assert {path.stem for path in SOURCES} == {"__init__", "boot", *MODULES}
    for path in SOURCES:
        tree = ast.parse(path.read_text("utf-8"), feature_version=(3, 8))
        modules = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {
            name if name in given else name.partition(".")[0] for name in modules
        } <= sys.stdlib_module_names | given
    assert max(len(argument.encode()) for argument in COMMAND) <= MAX_ARGUMENT_BYTES


def test_the_code_finds_neither_our_modules_nor_our_arguments():
    code = "import sys\n[len(sys.argv), [name for name in sys.modules if name.startswith('symbi')]]"
    assert told(code=code)[0] == {"kind": "value", "value": [1, []]}
    answer, _ = told(code="import sys\n[type(finder).__name__ for finder in sys.meta_path]")
    assert "Texts" not in answer["value"]


def test_the_last_expression_is_the_value_and_what_is_printed_is_kept_apart():
    answer, stdout = told(code="import sys\nprint('one')\nprint('two', file=sys.stderr)\nx + 1", inputs={"x": 41})
    assert (answer, stdout) == ({"kind": "value", "value": 42}, "one\ntwo\n")
    assert told(code="x = 1")[0] == {"kind": "value", "value": None}


@pytest.mark.parametrize(
    ("code", "kind", "place"),
    [
        ("\n1 / 0", "raised", [2, 1]),
        ("def f():\n    return [1][2]\nf()", "raised", [2, 12]),
        ("x = = 1", "syntax", [1, 5]),
        ("raise MemoryError", "memory", [1, 1]),
        ("def f(): f()\nf()", "depth", None),
        ("import sys\nsys.exit(0)", "raised", [2, 1]),
        ("2 ** 53", "wrong", None),
        ("{1: 2}", "wrong", None),
        ("x = []\nfor _ in range(20): x = [x]\nx", "wrong", None),
        ("float('nan')", "wrong", None),
        ("'\\ud800'", "wrong", None),
        ("'x' * 2000", "large", None),
        ("[['x' * 100] * 50] * 50", "large", None),
        ("[None] * 200", "large", None),
    ],
)
def test_each_end_has_a_kind_and_a_place(code, kind, place):
    answer, _ = told(code=code)
    assert answer["kind"] == kind
    if place is not None:
        assert answer["place"] == place


def test_what_is_too_much_or_takes_too_long_is_ended_from_outside_the_code():
    assert run(code="print('x' * 200)")["kind"] == "printed"
    assert run(code="while True: pass", timeout_s=0.2)["kind"] == "time"
    assert run(code="import os\nos._exit(7)") | {"duration_s": 0, "oom": 0} == {
        "kind": "died", "status": 7 << 8, "oom": 0, "duration_s": 0,
    }  # fmt: skip


def test_what_takes_too_long_leaves_no_process():
    mark = f"# {os.getpid()} {NONCE}"
    given = frame({"nonce": NONCE}) + frame(REQUEST | {"code": "while True: pass", "timeout_s": 0.2})
    subprocess.run([*COMMAND, mark, mark], input=given, capture_output=True, check=True, timeout=60)
    left = [one for one in psutil.process_iter(["cmdline", "status"]) if mark in " ".join(one.info["cmdline"] or ())]
    assert [one for one in left if one.info["status"] != psutil.STATUS_ZOMBIE] == []


def test_an_answer_that_the_code_writes_itself_is_bounded():
    forged = "import os, struct\nfor n in range(3, 20):\n    try: os.write(n, struct.pack('>I', 2 ** 31))\n    except OSError: pass\nos._exit(0)"
    answer, _ = told(code=forged)
    assert answer["kind"] == "large"


def test_limits_hold_for_the_code_alone():
    answer, _ = told(
        code="import resource\nresource.getrlimit(resource.RLIMIT_NOFILE)[1]", limits={"NOFILE": 33, "CORE": 0}
    )
    assert answer["value"] == 33
    answer, _ = told(code="b'x' * (512 << 20)\n1", limits={"DATA": 64 << 20})
    assert answer["kind"] == "memory"


def test_the_code_sees_no_environment_but_what_is_listed(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    answer, _ = told(code="import os\nsorted(os.environ)")
    assert "SECRET_TOKEN" not in answer["value"]
    answer, _ = told(code="import os\nos.environ['SECRET_TOKEN']", env=["SECRET_TOKEN"])
    assert answer["value"] == "s3cret"


def test_who_goes_away_or_sends_no_frame_ends_it():
    for given in (b"", b"0000000a{", b"ffffffff", frame({"nonce": NONCE})):
        done = subprocess.run(COMMAND, input=given, capture_output=True, check=False, timeout=60)
        assert len(list(frames(done.stdout))) == (1 if given.startswith(b"0000002d") or len(given) > 20 else 0)


def test_it_stays_until_whoever_has_its_answer_hangs_up():
    """What a container has used is in its control groups, and they are gone with its first process."""
    with subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as runner:
        runner.stdin.write(frame({"nonce": NONCE}) + frame(REQUEST | {"code": "1"}))
        runner.stdin.flush()
        for _ in ("probe", "answer"):
            head = runner.stdout.read(40)
            runner.stdout.read(int(head[32:], 16))
        with pytest.raises(subprocess.TimeoutExpired):
            runner.wait(0.2)
        runner.stdin.close()
        assert runner.wait(60) == 0
