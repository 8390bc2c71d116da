"""The first process with a program, run here as a process: files in pieces, the program, files out, limits."""

import base64
import json
import os
import subprocess
import sys

import psutil
import pytest

from symbi.sandbox.runner import runner_command

COMMAND = runner_command(sys.executable)
NONCE = "cd" * 16
REQUEST = {
    "kind": "command", "argv": [], "env": {"PATH": os.environ["PATH"]}, "outputs": [], "timeout_s": 20.0, "limits": {},
    "most_printed": 1000, "most_output": 1000,
}  # fmt: skip


def frame(what):
    data = json.dumps(what).encode()
    return b"%08x" % len(data) + data


def piece(name, data):
    return frame({"kind": "file", "name": name, "data": base64.b64encode(data).decode()})


@pytest.fixture
def run(tmp_path):
    calls = iter(range(100))

    def go(*argv, files=(), **changes):
        number = next(calls)
        base = tmp_path / str(number) if number else tmp_path
        base.mkdir(exist_ok=True)
        given = frame({"nonce": NONCE}) + b"".join(piece(name, data) for name, data in files)
        given += frame(REQUEST | {"argv": list(argv)} | changes)
        done = subprocess.run(
            COMMAND, input=given, capture_output=True, check=True, timeout=60, env={"TMPDIR": str(base)}
        )
        assert done.stderr == b""
        data = done.stdout
        told = []
        while data:
            assert data[:32] == NONCE.encode()
            length = int(data[32:40], 16)
            told.append(json.loads(data[40 : 40 + length]))
            data = data[40 + length :]
        assert len(told) == 2
        return told[1]

    return go


def python(code):
    return sys.executable, "-c", code


def outputs(answer):
    return [
        (one["name"], base64.b64decode(one["data"]) if "data" in one else one["problem"]) for one in answer["outputs"]
    ]


def test_a_program_says_what_it_says_and_ends_as_it_ends(run):
    answer = run(*python("import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(7)"))
    assert {name: answer[name] for name in ("kind", "status", "stdout", "stderr", "outputs")} == {
        "kind": "ended", "status": 7 << 8, "stdout": "out\n", "stderr": "err\n", "outputs": [],
    }  # fmt: skip
    assert run(*python("import os\nos.kill(os.getpid(), 9)"))["status"] == 9


def test_pieces_of_files_come_together_and_are_for_reading(run, tmp_path):
    code = (
        "import os, sys\n"
        "at = sys.argv[1]\n"
        "print([(n, open(f'{at}/in/{n}').read(), oct(os.stat(f'{at}/in/{n}').st_mode)) for n in sorted(os.listdir(f'{at}/in'))])"
    )
    answer = run(*python(code), str(tmp_path), files=[("a", b"one "), ("a", b"two"), ("b", b"")])
    assert answer["stdout"] == "[('a', 'one two', '0o100444'), ('b', '', '0o100444')]\n"
    assert answer["kind"] == "ended"


def test_outputs_are_regular_files_within_a_bound_all_together(run):
    code = (
        "import os\n"
        "os.chdir('out')\n"
        "open('a', 'w').write('x' * 600)\n"
        "open('b', 'w').write('x' * 600)\n"
        "open('c', 'w').write('y' * 400)\n"
        "os.symlink('a', 'd')\n"
        "os.mkfifo('e')\n"
        "os.mkdir('f')\n"
        "os.truncate(os.open('g', os.O_CREAT | os.O_WRONLY), 1 << 40)\n"
    )
    answer = run(*python(code), outputs=["a", "b", "c", "d", "e", "f", "g", "h"])
    assert outputs(answer) == [
        ("a", b"x" * 600), ("b", "EFBIG"), ("c", b"y" * 400), ("d", "ELOOP"), ("e", "EINVAL"), ("f", "EINVAL"),
        ("g", "EFBIG"), ("h", "ENOENT"),
    ]  # fmt: skip


def test_a_folder_of_outputs_that_is_a_link_is_not_followed(run, tmp_path):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "o").write_text("s3cret")
    answer = run(*python("import os\nos.rmdir('out')\nos.symlink('secret', 'out')"), outputs=["o"])
    assert outputs(answer)[0][1] in {"ENOTDIR", "ELOOP"}


def test_limits_hold(run):
    assert run(*python("while True: pass"), timeout_s=0.3)["kind"] == "time"
    assert run(*python("while True: print('x' * 100, flush=True)"))["kind"] == "printed"
    assert run(*python("import sys\nwhile True: print('x' * 100, file=sys.stderr, flush=True)"))["kind"] == "printed"
    assert run(*python("import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE)[1])"), limits={"NOFILE": 33})[
        "stdout"
    ] == "33\n"  # fmt: skip


def test_a_program_that_is_not_there_is_told_by_its_errno(run, tmp_path):
    assert run("nonesuch")["kind"] == "exec"
    assert run("nonesuch")["errno"] == "ENOENT"
    (tmp_path / "text").write_text("x")
    assert run(str(tmp_path / "text"))["errno"] == "EACCES"


def test_what_a_program_leaves_behind_does_not_hold_up_its_end(run):
    code = "import os, signal\npid = os.fork()\nif pid == 0:\n    signal.pause()\nprint(pid)"
    answer = run(*python(code), timeout_s=20.0)
    assert answer["kind"] == "ended"
    left = int(answer["stdout"])
    assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE
    assert answer["duration_s"] < 15


def test_files_that_cannot_be_put_there_are_told(run, tmp_path):
    (tmp_path / "in").mkdir()
    answer = run(*python("1"), files=[("a", b"x")])
    assert (answer["kind"], answer["errno"]) == ("staging", "EEXIST")


def test_the_environment_and_the_descriptors_are_those_of_the_request(run):
    code = (
        "import os\n"
        "def is_open(n):\n"
        "    try:\n"
        "        return bool(os.fstat(n))\n"
        "    except OSError:\n"
        "        return False\n"
        "print([n for n in range(300) if is_open(n)], sorted(os.environ))"
    )
    answer = run(*python(code), env={"MODE": "x", "PATH": "/bin"})
    names = answer["stdout"]
    assert names.startswith("[0, 1, 2] ")
    assert "'MODE', 'PATH'" in names
    assert "TMPDIR" not in names
