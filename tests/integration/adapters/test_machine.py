"""The facts behind `symbi doctor`, on this machine and with doubles for what it lacks or cannot be made to do."""

import json
import os
import socket
import threading
from contextlib import contextmanager

import keyring.backends.fail
import keyring.errors
import pydantic_monty
import pytest

from symbi.adapters.machine import (
    Capacity,
    Finding,
    Wanted,
    machine_capacity,
    probe_clock,
    probe_data_folder,
    probe_disk,
    probe_engine,
    probe_interpreter,
    probe_keyring,
    probe_machine,
    probe_python,
    probe_terminal,
)
from symbi.adapters.machine import engine as engine_probe
from symbi.adapters.machine import probes as machine
from symbi.testing.clock import ManualClock

VERSION = {"Version": "28.2.2"}
INFO = {
    "Runtimes": {"runc": {}}, "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=userns"],
    "MemoryLimit": True, "SwapLimit": False, "PidsLimit": True, "CpuCfsQuota": True,
}  # fmt: skip


def answer(payload, status="200 OK"):
    body = json.dumps(payload).encode()
    return b"HTTP/1.0 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@contextmanager
def engine(tmp_path, replies):
    """A unix socket that answers each connection with the next of the replies; None never answers."""
    path = str(tmp_path / "engine.sock")
    held = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve():
            for reply in replies:
                line, _ = listener.accept()
                line.recv(4096)
                if reply is None:
                    held.append(line)
                else:
                    line.sendall(reply)
                    line.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield {"DOCKER_HOST": f"unix://{path}"}
        thread.join(timeout=10)
        for line in held:
            line.close()


def ask(environ, runsc=None):
    docker, gvisor, *_ = probe_engine(environ, lambda name: runsc if name == "runsc" else None)
    return docker, gvisor


def test_this_machine_is_described_within_bounds_and_nothing_is_left_behind(tmp_path):
    folder = tmp_path / "not" / "yet"
    findings = probe_machine(folder, environ={"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    by_name = {finding.name: finding for finding in findings}
    assert len(by_name) == len(findings)
    for name in ("python", "interpreter sandbox", "disk", "data folder", "clock"):
        assert by_name[name].ok, by_name[name]
        assert by_name[name].required
    assert not by_name["docker"].ok
    assert all(finding.ok or finding.install_hint for finding in findings)
    assert all(finding.detail.isprintable() for finding in findings)
    assert list(tmp_path.iterdir()) == []


def test_the_capacity_is_that_of_the_machine_or_what_a_container_leaves_of_it(tmp_path):
    whole = machine_capacity(tmp_path / "missing")
    assert whole.memory_mib > 64
    assert whole.cpu_milli % 1000 == 0
    (tmp_path / "memory.max").write_text("67108864\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert machine_capacity(tmp_path) == Capacity(memory_mib=64, cpu_milli=500)
    for memory, cpu in (("max", "max 100000"), ("9" * 18, "99999999 1000"), ("", ""), ("x", "1 0")):
        (tmp_path / "memory.max").write_text(memory)
        (tmp_path / "cpu.max").write_text(cpu)
        assert machine_capacity(tmp_path) == whole


def test_an_old_python_is_named():
    assert not probe_python((3, 10, 9), "CPython").ok
    assert probe_python((3, 11, 0), "CPython").ok


@pytest.mark.parametrize("error", [OSError("no such binary"), TimeoutError("slow"), RuntimeError("no\nruntime")])
def test_an_interpreter_that_does_not_start_is_a_finding(error):
    def pool(**_):
        raise error

    finding = probe_interpreter(pool)
    assert not finding.ok
    assert finding.required
    assert "pydantic-monty" in finding.install_hint
    assert finding.detail.isprintable()


def test_an_interpreter_that_miscounts_is_a_finding(monkeypatch):
    class Wrong:
        def __init__(self, **_): ...
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def checkout(self):
            return self

        def feed_run(self, _):
            return 284

    assert probe_interpreter(Wrong) == Finding(
        "interpreter sandbox",
        ok=False,
        detail="it miscounts",
        install_hint="install the package pydantic-monty again, with its runtime",
        required=True,
    )
    assert issubclass(pydantic_monty.MontyError, Exception)


def test_a_folder_that_cannot_be_written_is_a_finding(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(machine.tempfile, "TemporaryFile", full)
    finding = probe_disk(tmp_path)
    assert not finding.ok
    assert "No space left on device" in finding.detail


def test_a_disk_that_does_not_sync_is_a_finding(tmp_path, monkeypatch):
    def broken(_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(machine.os, "fsync", broken)
    assert not probe_disk(tmp_path).ok


def test_a_nearly_full_disk_is_a_finding(tmp_path, monkeypatch):
    usage = machine.shutil.disk_usage(tmp_path)._replace(free=machine.MIN_FREE_BYTES - 1)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    finding = probe_disk(tmp_path)
    assert not finding.ok
    assert finding.install_hint == "free some space: 256 MiB at least"


def test_a_data_folder_that_is_closed_to_others_is_fine(tmp_path):
    folder = tmp_path / "data"
    (folder / "keys").mkdir(parents=True)
    (folder / "keys" / "audit-signing").write_bytes(b"x")
    for path, mode in ((folder, 0o700), (folder / "keys", 0o700), (folder / "keys" / "audit-signing", 0o600)):
        path.chmod(mode)
    assert probe_data_folder(folder).ok


@pytest.mark.parametrize(
    ("name", "mode"), [("", 0o755), ("keys", 0o710), ("keys/audit-signing", 0o640), ("secrets.toml", 0o604)]
)
def test_what_others_may_read_in_the_data_folder_is_named(tmp_path, name, mode):
    folder = tmp_path / "data"
    (folder / "keys").mkdir(parents=True)
    for file in ("keys/audit-signing", "secrets.toml"):
        (folder / file).write_bytes(b"x")
        (folder / file).chmod(0o600)
    (folder / "keys").chmod(0o700)
    folder.chmod(0o700)
    (folder / name).chmod(mode)
    finding = probe_data_folder(folder)
    assert not finding.ok
    assert f"{folder / name}" in finding.detail
    assert f"{mode:04o}" in finding.detail
    assert finding.install_hint.startswith("chmod 7" if (folder / name).is_dir() else "chmod 6")


def test_a_key_that_is_a_link_is_named(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "audit-signing").symlink_to("/dev/null")
    (tmp_path / "keys").chmod(0o700)
    tmp_path.chmod(0o700)
    assert "is a link" in probe_data_folder(tmp_path).detail


def test_files_of_another_user_are_named(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setattr(machine.os, "geteuid", lambda: os.getuid() + 1)
    assert "belongs to another user" in probe_data_folder(tmp_path).detail


@pytest.mark.parametrize("year_ns", [0, 4_200_000_000_000_000_000])
def test_a_clock_that_was_never_set_is_a_finding(year_ns):
    assert probe_clock(ManualClock()).ok
    assert not probe_clock(ManualClock(year_ns)).ok


def test_a_monotonic_clock_that_goes_back_is_a_finding():
    class Back(ManualClock):
        def monotonic_s(self):
            self.advance(-1)
            return super().monotonic_s()

    assert not probe_clock(Back()).ok


def test_a_missing_or_broken_keyring_is_a_finding_but_not_a_need(monkeypatch):
    monkeypatch.setattr(machine.keyring, "get_keyring", keyring.backends.fail.Keyring)
    assert (probe_keyring().ok, probe_keyring().required) == (False, False)

    def broken():
        raise keyring.errors.InitError("no bus")

    monkeypatch.setattr(machine.keyring, "get_keyring", broken)
    assert probe_keyring().detail == "no bus"


def test_an_engine_with_gvisor_is_described(tmp_path):
    info = INFO | {"Runtimes": {"runc": {}, "runsc": {}}}
    with engine(tmp_path, [answer(VERSION), answer(info)]) as environ:
        docker, gvisor = ask(environ)
    assert docker.ok
    assert docker.detail.endswith("without swap limits")
    assert docker.detail.startswith("engine 28.2.2 at unix://")
    assert gvisor.ok


def test_an_engine_without_a_filter_of_system_calls_or_without_the_runtime_is_no_tier_1(tmp_path):
    for number, info in enumerate(({"Runtimes": {"runc": {}}}, INFO | {"Runtimes": {"crun": {}}})):
        (tmp_path / str(number)).mkdir()
        with engine(tmp_path / str(number), [answer(VERSION), answer(info)]) as environ:
            docker, _ = ask(environ)
        assert not docker.ok
        assert "`runc`" in docker.install_hint


def test_the_image_is_looked_for_in_the_engine_that_is_configured(tmp_path):
    image = "sha256:" + 64 * "0"
    for number, (reply, ok) in enumerate(
        ((answer({"Size": 50 << 20}), True), (answer({"message": "No such image"}, "404 Not Found"), False))
    ):
        (tmp_path / str(number)).mkdir()
        with engine(tmp_path / str(number), [answer(VERSION), answer(INFO), reply]) as environ:
            wanted = Wanted(environ["DOCKER_HOST"], image)
            *_, found = probe_engine({"DOCKER_HOST": "unix:///not/asked"}, lambda _: None, wanted)
        assert (found.name, found.ok) == ("sandbox image", ok)
        assert image in found.detail
        assert ("symbi sandbox image" in found.install_hint) is not ok


def test_every_image_of_programs_is_looked_for_and_one_with_volumes_is_not_fit(tmp_path):
    first, gone, disk = (
        f"{name}@sha256:" + 64 * digit for name, digit in (("a.example/x", "0"), ("b", "1"), ("c", "2"))
    )
    replies = [
        answer({"Size": 50 << 20, "Config": {"Volumes": None}}),
        answer({"message": "No such image"}, "404 Not Found"),
        answer({"Size": 1, "Config": {"Volumes": {"/data": {}}}}),
    ]
    with engine(tmp_path, [answer(VERSION), answer(INFO), *replies]) as environ:
        wanted = Wanted(environ["DOCKER_HOST"], first, images=(gone, first, disk, gone))
        _, _, *found = probe_engine({}, lambda _: None, wanted)
    assert [(one.name, one.ok) for one in found] == [
        ("sandbox image", True), ("program image", False), ("program image", False)
    ]  # fmt: skip
    assert [image in one.detail for image, one in zip((first, gone, disk), found, strict=True)] == [True] * 3
    assert "not in the engine" in found[1].detail
    assert ("declares volumes" in found[2].detail, "VOLUME" in found[2].install_hint) == (True, True)


def test_an_image_for_python_is_missed_though_programs_have_theirs(tmp_path):
    image = "b@sha256:" + 64 * "1"
    with engine(tmp_path, [answer(VERSION), answer(INFO), answer({"Size": 1})]) as environ:
        _, _, *found = probe_engine({}, lambda _: None, Wanted(environ["DOCKER_HOST"], images=(image,)))
    assert [(one.name, one.ok) for one in found] == [("sandbox image", False), ("program image", True)]
    assert "`python(…)`" in found[0].detail


def test_a_runsc_that_the_engine_does_not_know_is_not_taken_for_gvisor(tmp_path):
    with engine(tmp_path, [answer(VERSION), answer(INFO)]) as environ:
        docker, gvisor = ask(environ, runsc="/usr/bin/runsc")
    assert docker.ok
    assert not gvisor.ok
    assert "daemon.json" in gvisor.install_hint


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n[1]",
        b"HTTP/1.0 200 OK\r\n\r\n{",
        b"HTTP/1.0 200 OK\r\n\r\n\xff",
        answer({"message": "no"}, "500 Internal Server Error"),
    ],
)
def test_an_engine_that_speaks_garbage_is_a_finding(tmp_path, reply):
    with engine(tmp_path, [reply]) as environ:
        docker, gvisor = ask(environ)
    assert not docker.ok
    assert docker.detail.isprintable()
    assert not gvisor.ok


def test_an_engine_that_hangs_or_drips_is_given_up_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_probe, "ENGINE_TIMEOUT_S", 0.05)
    with engine(tmp_path, [None]) as environ:
        docker, _ = ask(environ)
    assert not docker.ok
    assert "timed out" in docker.detail
    ticks = iter(range(100))
    monkeypatch.setattr(engine_probe.SystemClock, "monotonic_s", lambda _: next(ticks) * 0.04)
    (tmp_path / "second").mkdir()
    with engine(tmp_path / "second", [answer(VERSION)]) as environ:
        docker, _ = ask(environ)
    assert "does not answer in time" in docker.detail


@pytest.mark.parametrize(
    ("listens", "known"), [("::1", ["::1"]), ("127.0.0.1", ["127.0.0.1"]), ("127.0.0.1", ["::1", "127.0.0.1"])]
)
def test_an_engine_is_asked_at_whichever_address_its_name_has(monkeypatch, listens, known):
    def found(_host, port, *_):
        families = [socket.AF_INET6 if ":" in one else socket.AF_INET for one in known]
        return [(family, socket.SOCK_STREAM, 0, "", (one, port)) for family, one in zip(families, known, strict=True)]

    family = socket.AF_INET6 if ":" in listens else socket.AF_INET
    with socket.create_server((listens, 0), family=family) as listener:
        monkeypatch.setattr(socket, "getaddrinfo", found)

        def serve():
            for reply in (VERSION, INFO):
                line, _ = listener.accept()
                with line:
                    line.recv(4096)
                    line.sendall(answer(reply))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        wanted = Wanted(f"tcp://engine.invalid:{listener.getsockname()[1]}", plain_tcp=True)
        docker, *_ = probe_engine({}, lambda _: None, wanted)
    assert docker.ok
    assert "engine 28.2.2" in docker.detail


@pytest.mark.parametrize("host", ["ssh://me@host", "unix://", "tcp://", "tcp://[", "tcp://h:99999999", "nonsense"])
def test_an_address_that_cannot_be_asked_is_a_finding(host):
    docker, _ = ask({"DOCKER_HOST": host})
    assert not docker.ok


def test_credentials_in_the_address_are_not_shown():
    docker, _ = ask({"DOCKER_HOST": "ssh://me:canary@host"})
    assert "canary" not in f"{docker}"


def test_an_engine_elsewhere_is_not_asked_without_tls_nor_with_certificates_that_are_not_there(tmp_path):
    docker, gvisor = ask({"DOCKER_HOST": "tcp://192.0.2.1:2375"})
    assert "without TLS" in docker.detail
    assert "docker_tls_verify" in docker.install_hint
    assert not gvisor.ok
    environ = {"DOCKER_HOST": "tcp://192.0.2.1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    docker, _ = ask(environ)
    assert "ca.pem, cert.pem, key.pem is not there" in docker.detail


@pytest.mark.parametrize(
    ("runtime", "ok", "word"),
    [
        ({"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace", "--oci-seccomp"]}, True, "write bandwidth"),
        ({"path": "/usr/bin/runsc", "runtimeArgs": ["-oci-seccomp=true"]}, True, "write bandwidth"),
        ({"path": "/usr/bin/runsc", "runtimeArgs": ["--platform=ptrace"]}, False, "no code runs in it"),
        ({"path": "/usr/bin/runsc", "runtimeArgs": ["--oci-seccomp=false"]}, False, "no code runs in it"),
        ({"path": "/usr/bin/runsc"}, False, "no code runs in it"),
        ({"runtimeType": "io.containerd.runsc.v1"}, True, "does not say"),
    ],
)
def test_a_gvisor_that_leaves_the_filter_out_is_said(tmp_path, runtime, ok, word):
    info = INFO | {"Runtimes": {"runc": {}, "runsc": runtime}}
    with engine(tmp_path, [answer(VERSION), answer(info)]) as environ:
        _, gvisor = ask(environ)
    assert (gvisor.ok, word in gvisor.detail) == (ok, True)
    assert ("daemon.json" in gvisor.install_hint) is not ok


def test_what_the_engine_warns_of_is_passed_on_in_bounds(tmp_path):
    said = ["WARNING: No swap\nlimit support", 5, *(f"WARNING: {number} \x1b[2J" for number in range(9))]
    with engine(tmp_path, [answer(VERSION), answer(INFO | {"Warnings": said})]) as environ:
        _, warnings, _, _ = probe_engine(environ, lambda _: None)
    assert warnings.name == "docker warnings"
    assert warnings.detail == "No swap limit support; 0 ?[2J; 1 ?[2J; 2 ?[2J; and 6 more"


def test_a_terminal_without_utf8_is_a_finding(monkeypatch):
    class Old:
        encoding = "ANSI_X3.4-1968"

        def isatty(self):
            return True

    monkeypatch.setattr(machine.sys, "stdout", Old())
    finding = probe_terminal({"TERM": "vt100"})
    assert not finding.ok
    assert finding.detail == "terminal, ansi_x3.4-1968, TERM=vt100"
