"""Programs in containers under attack: what goes in by name and digest, what comes out, and what never does."""

import hashlib
import io
import json
import tarfile
import tempfile
import zipfile

import anyio
import pytest

from symbi.adapters.docker import Engine, write_root
from symbi.errors import CodeFailed, InputError, MemoryLimit, OutputLimit, SandboxUnavailable, ScriptFailed, TimeLimit
from symbi.sandbox.files import MAX_OUTPUT_BYTES
from symbi.sandbox.port import CommandResult

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

MIB = 1_048_576
UNKNOWN = "sha256:" + 64 * "1"


async def noted(target, code, **asked):
    """A program whose text comes in as a file, and what was noted of it."""
    inputs = {"p.py": code, **asked.pop("inputs", {})}
    return await target.program("python3", "/tmp/in/p.py", inputs=inputs, **asked)


async def python(target, code, **asked):
    return (await noted(target, code, **asked))[0]


SEES = """
import json, os, sys
at = "/tmp/in"
print("hello")
print("oh", file=sys.stderr)
told = {
    "files": {name: open(os.path.join(at, name), encoding="utf-8").read() for name in sorted(os.listdir(at)) if name != "p.py"},
    "modes": sorted({oct(os.stat(os.path.join(at, name)).st_mode & 0o777) for name in os.listdir(at)} | {oct(os.stat(at).st_mode & 0o777)}),
    "env": dict(os.environ), "argv": sys.argv[1:], "here": os.getcwd(), "parents": os.getppid(), "pid1": open("/proc/1/comm").read().strip(),
    "fds": sorted(os.listdir("/proc/self/fd"))[:4], "stdin": sys.stdin.read(),
}
json.dump(told, open("/tmp/out/report.json", "w"))
open("/tmp/out/note.txt", "w").write("done \u00e9")
open("/tmp/out/other.txt", "w").write("nobody asked for this")
sys.exit(3)
"""


async def test_files_go_in_and_come_out_by_name_and_digest(target):
    inputs = {"a.txt": "one\n\u00e9", "b.json": {"k": [1, 2.5, None]}, "c": ""}
    ended, facts = await noted(target, SEES, inputs=inputs, outputs=("report.json", "note.txt"), env={}, options={})
    assert isinstance(ended, CommandResult), repr(ended)
    assert (ended.code, ended.stdout, ended.stderr) == (3, "hello\n", "oh\n")
    assert set(ended.outputs) == {"report.json", "note.txt"}
    assert ended.outputs["note.txt"] == "done \u00e9"
    report = ended.outputs["report.json"]
    assert report["files"] == {"a.txt": "one\n\u00e9", "b.json": '{"k":[1,2.5,null]}', "c": ""}
    assert report["modes"] == ["0o444", "0o555"]
    assert sorted(report["env"]) == ["HOME", "LANG", "PATH", "TMPDIR"]
    assert (report["here"], report["stdin"], report["parents"]) == ("/tmp", "", 1)
    assert facts["files_in"]["a.txt"] == [hashlib.sha256("one\n\u00e9".encode()).hexdigest(), 6]
    assert facts["files_out"]["note.txt"][0] == hashlib.sha256("done \u00e9".encode()).hexdigest()
    assert facts["sandbox"]["uid"] == 65534


async def test_a_program_that_fails_or_is_killed_is_a_result(target):
    ended = await python(target, "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)", outputs=("never",))
    assert isinstance(ended, CommandResult), repr(ended)
    assert (ended.code, ended.outputs) == (143, {"never": None})


async def test_what_is_not_in_the_image_is_no_program(target):
    for word in ("nonesuch", "/etc/passwd", "/tmp/in/p.py", "a\nb"):
        ended, _ = await target.program(word, inputs={"p.py": "x"})
        assert type(ended) is CodeFailed, repr(ended)
        assert "cannot be run in the image" in ended.message
        assert ended.message.isprintable()


WRITES = {
    "link to a file": ("os.symlink('/etc/passwd', '/tmp/out/o')", CodeFailed, "a link"),
    "link to the first process": ("os.symlink('/proc/1/environ', '/tmp/out/o')", CodeFailed, "a link"),
    "link to itself": ("os.symlink('/tmp/out/o', '/tmp/out/o')", CodeFailed, "a link"),
    "dangling link": ("os.symlink('/nowhere', '/tmp/out/o')", CodeFailed, "a link"),
    "link for the folder": ("os.rmdir('/tmp/out'); os.symlink('/etc', '/tmp/out')", CodeFailed, ""),
    "no folder": ("os.rmdir('/tmp/out')", CodeFailed, "did not write"),
    "file for the folder": ("os.rmdir('/tmp/out'); open('/tmp/out', 'w').write('x')", CodeFailed, "no regular file"),
    "closed folder": ("os.mkdir('/tmp/out/x'); os.chmod('/tmp/out', 0)", CodeFailed, "cannot be read"),
    "folder": ("os.mkdir('/tmp/out/o')", CodeFailed, "no regular file"),
    "pipe": ("os.mkfifo('/tmp/out/o')", CodeFailed, "no regular file"),
    "socket": ("socket.socket(socket.AF_UNIX).bind('/tmp/out/o')", CodeFailed, "no regular file"),
    "unreadable": ("os.close(os.open('/tmp/out/o', os.O_CREAT, 0))", CodeFailed, "cannot be read"),
    "sparse giant": ("os.truncate(os.open('/tmp/out/o', os.O_CREAT | os.O_WRONLY), 15 << 20)", OutputLimit, "larger"),
    "giant": ("open('/tmp/out/o', 'wb').write(b'x' * (2 << 20))", OutputLimit, "larger"),
    "one byte too many": (f"open('/tmp/out/o', 'wb').write(b'x' * {MAX_OUTPUT_BYTES + 1})", OutputLimit, "larger"),
    "no UTF-8": ("open('/tmp/out/o', 'wb').write(b'ab\\xff')", CodeFailed, "byte 2 is no UTF-8"),
    "nothing": ("pass", CodeFailed, "did not write its output `o`"),
    "another name": ("open('/tmp/out/O', 'w').write('x')", CodeFailed, "did not write"),
    "elsewhere": ("open('/tmp/o', 'w').write('x')", CodeFailed, "did not write"),
}


@pytest.mark.parametrize("how", WRITES)
async def test_only_a_regular_file_of_bounded_size_comes_out(target, how):
    code, error, says = WRITES[how]
    ended = await python(target, f"import os, socket\n{code}", outputs=("o",))
    assert type(ended) is error, repr(ended)
    assert says in ended.message
    assert "root" not in str(ended)


async def test_a_hard_link_and_a_full_file_come_out_as_what_they_are(target):
    code = f"import os\nopen('/tmp/a', 'w').write('x' * {MAX_OUTPUT_BYTES})\nos.link('/tmp/a', '/tmp/out/o')"
    ended = await python(target, code, outputs=("o",))
    assert ended.outputs == {"o": "x" * MAX_OUTPUT_BYTES}


async def test_all_outputs_are_bounded_together(target):
    code = "for n in range(3): open(f'/tmp/out/{n}', 'w').write('x' * 400_000)"
    ended = await python(target, code, outputs=("0", "1", "2"))
    assert type(ended) is OutputLimit, repr(ended)


PARSES = {
    "no JSON": ("'{'", CodeFailed, "no JSON at line 1"),
    "nothing": ("''", CodeFailed, "no JSON"),
    "not a number": ("'[NaN]'", CodeFailed, "not finite"),
    "infinite": ("'1e999'", CodeFailed, "not finite"),
    "digits without end": ("'9' * 100_000", CodeFailed, "no JSON"),
    "deep": ("'[' * 300_000 + ']' * 300_000", OutputLimit, "parts"),
    "deeper than a value": ("'[' * 5_000 + ']' * 5_000", CodeFailed, "nests"),
    "parts": ("'[' + '0,' * 300_000 + '0]'", OutputLimit, "parts"),
    "lone surrogate": ("'\"\\\\ud800\"'", CodeFailed, "surrogate"),
}


@pytest.mark.parametrize("how", PARSES)
async def test_json_that_comes_out_is_parsed_within_bounds(target, how):
    code, error, says = PARSES[how]
    ended = await python(target, f"open('/tmp/out/o.json', 'w').write({code})", outputs=("o.json",))
    assert type(ended) is error, repr(ended)
    assert says in ended.message


async def test_what_a_program_leaves_behind_changes_nothing_while_its_files_are_looked_at(target):
    code = (
        "import os, time\n"
        "open('/tmp/out/o', 'w').write('mine')\n"
        "for _ in range(4):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            while True:\n"
        "                try:\n"
        "                    os.unlink('/tmp/out/o')\n"
        "                    os.symlink('/etc/passwd', '/tmp/out/o')\n"
        "                    os.unlink('/tmp/out/o')\n"
        "                    open('/tmp/out/o', 'w').write('mine')\n"
        "                except OSError:\n"
        "                    pass\n"
        "        os._exit(0)\n"
    )
    for _ in range(3):  # whatever stood there at the end, nothing of the image ever comes out
        ended = await python(target, code, outputs=("o",))
        if isinstance(ended, CommandResult):
            assert ended.outputs["o"] in {"", "mine"}
        else:
            assert type(ended) is CodeFailed, repr(ended)


async def test_archives_are_files_and_stay_so(target):
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../etc/passwd", b"0" * (16 * MIB))
    packed = bomb.getvalue().hex()
    code = "import os\nprint(os.listdir('/tmp/in'), os.stat('/tmp/in/bomb.zip').st_size, os.listdir('/tmp/out'))"
    ended, facts = await noted(target, code, inputs={"bomb.zip": packed})
    assert ended.stdout == f"{sorted(['p.py', 'bomb.zip'])!r} {len(packed)} []\n" or str(len(packed)) in ended.stdout
    assert facts["files_in"]["bomb.zip"] == [hashlib.sha256(packed.encode()).hexdigest(), len(packed)]


async def test_limits_are_those_of_code(target):
    assert type(await python(target, "while True: pass", timeout_s=1.0)) is TimeLimit
    assert type(await python(target, "while True: print('x' * 1000)", timeout_s=10.0)) is OutputLimit
    ended = await python(target, "x = bytearray(400 << 20)\nprint(len(x))", timeout_s=10.0, memory_mib=64)
    assert type(ended) is MemoryLimit, repr(ended)


async def test_inputs_that_do_not_fit_are_refused(target):
    ended = await python(target, "1", inputs={"large": "x" * (9 * MIB), "larger": "x" * (9 * MIB)})
    assert type(ended) is MemoryLimit, repr(ended)
    assert "do not fit" in ended.message


async def test_what_is_asked_for_is_checked_again_behind_the_gate(target):
    for names in (
        ("../o",),
        ("/etc/passwd",),
        ("",),
        (".",),
        ("..",),
        ("-rf",),
        ("a/b",),
        ("x" * 101,),
        ("o", "o"),
        ("a\n",),
    ):
        ended, _ = await target.program("python3", "-c", "1", outputs=names)
        assert type(ended) is InputError, (names, ended)
    ended, _ = await target.program("python3", "-c", "1", inputs={"../p.py": "x"})
    assert type(ended) is InputError
    ended, _ = await target.program("python3", "-c", "1", env={"LD_PRELOAD": "/tmp/x.so"})
    assert type(ended) is ScriptFailed
    ended, _ = await target.program("python3", "-c", "1", network=("example.com:443",))
    assert (type(ended), ended.code) == (SandboxUnavailable, "unavailable.network")
    assert target.engine.ids == {}  # no container was made for any of it


async def test_an_image_is_one_that_is_named_and_there(target):
    ended, _ = await target.program("python3", image=UNKNOWN)
    assert (type(ended), ended.code) == (SandboxUnavailable, "unavailable.image")
    assert "the engine has no image" in ended.message
    other = f"symbi-test@{target.docker.image}"  # an id where the digest of a manifest belongs
    ended, _ = await target.program("python3", image=other)
    assert (type(ended), ended.code) == (SandboxUnavailable, "unavailable.image")


async def test_no_address_is_reached_by_a_program(target):
    code = (
        "import json, socket\n"
        "met = {}\n"
        "for host, port in (('169.254.169.254', 80), ('8.8.8.8', 53), ('172.17.0.1', 2375)):\n"
        "    with socket.socket() as line:\n"
        "        line.settimeout(2)\n"
        "        try:\n"
        "            line.connect((host, port)); met[host] = 'reached'\n"
        "        except OSError as error:\n"
        "            met[host] = error.errno\n"
        "print(json.dumps(met))"
    )
    ended = await python(target, code)
    assert "reached" not in json.loads(ended.stdout).values()


def only(**files):
    """A root with nothing but some files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("_", "/"))
            entry.size, entry.mode = len(text), 0o755
            archive.addfile(entry, io.BytesIO(text))
    content.seek(0)
    return content


@pytest.fixture(scope="session")
def images(docker):
    """Images that are not like ours, by what they are; made before anything is measured."""
    set_up = ["ENV TOKEN=image", "ENV PYTHONSTARTUP=/x", 'ENTRYPOINT ["/bin/false"]', "USER 0", "WORKDIR /etc"]

    async def made():
        async with Engine(docker.host) as engine:
            with tempfile.TemporaryFile() as root:
                write_root(root, [])
                found = {}
                for name, changes in {"volumes": ["VOLUME /data"], "set up": set_up}.items():
                    root.seek(0)
                    found[name] = await engine.import_image(root, "symbi-other", changes)
            found["empty"] = await engine.import_image(only(data=b"x"), "symbi-other", ())
            found["broken"] = await engine.import_image(only(usr_bin_python3=b"no program"), "symbi-other", ())
            return found

    return anyio.run(made)


async def test_an_image_without_python_says_that_it_needs_one(unwatched, images):
    # Docker 20.10 keeps the shim of a gVisor that does not start: so nothing is said here of what is left on the host.
    await no_python(unwatched, images)
    assert await unwatched.engine.containers("symbi.instance=attacks") == []


async def no_python(target, images):
    image = images["empty"]
    ended, _ = await target.program("data", image=image)
    assert (type(ended), ended.code) == (SandboxUnavailable, "unavailable.image"), repr(ended)
    assert image in ended.message
    assert "python3" in ended.hint
    ended, _ = await target.program("data", image=images["broken"])
    assert (type(ended), ended.code) == (SandboxUnavailable, "unavailable.image"), repr(ended)


async def test_an_image_that_brings_writable_disk_is_refused(target, images):
    image = images["volumes"]
    ended, _ = await target.program("python3", "-c", "1", image=image)
    assert (type(ended), ended.code) == (SandboxUnavailable, "unavailable.image"), repr(ended)
    assert "volumes" in ended.message


async def test_what_an_image_sets_in_the_environment_does_not_reach_a_program(target, images):
    image = images["set up"]
    code = "import json, os\nprint(json.dumps([dict(os.environ), os.getuid(), os.getcwd()]))"
    ended, _ = await target.program("python3", "-c", code, image=image)
    variables, user, here = json.loads(ended.stdout)
    assert sorted(variables) == ["HOME", "LANG", "PATH", "TMPDIR"]
    assert (user, here) == (65534, "/tmp")
    options = {"variables": frozenset({"MODE"})}
    code = "import os\nprint(os.environ['MODE'])"
    ended, _ = await target.program("python3", "-c", code, env={"MODE": "fast"}, options=options)
    assert ended.stdout == "fast\n"
