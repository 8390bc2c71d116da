"""A Docker Engine of one's own, with gVisor, for tests and measurements: on a private socket, gone without a trace."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import anyio

from symbi.adapters.docker import Engine, write_root
from symbi.errors import SandboxUnavailable

PROGRAMS: Final = ("/bin/sh", "/bin/ls", "/bin/cat", "/bin/sleep")
START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
RUNSC_ARGS: Final = (
    "--network=none", "--platform=ptrace",  # what Debian's build of 2022 needs on newer kernels
    "--oci-seccomp",  # the container's own filter of system calls, which gVisor leaves out unless it is told
)  # fmt: skip

UNFILTERED: Final = "runsc-unfiltered"
"""The runtime of the engine that is gVisor as it is without that argument."""

_LISTENS: Final = "API listen on"


class DockerEngine:
    """Starts `dockerd` by hand in a folder of its own; needs root, `dockerd` and `runsc`.

    Attributes:
        host: Its address.
        folder: Where all that it has is.
        image: The id of the image that was imported last.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="symbi-d-", dir="/tmp"))
        self.host = f"unix://{self.folder}/d.sock"
        self.image = ""
        self._process: subprocess.Popen[str] | None = None
        self._listens = threading.Event()
        self._said: list[str] = []

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            SandboxUnavailable: It is not installed, or does not start; the message has its last words.
        """
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, with all processes and mounts that it has left, and remove its folder."""
        self.stop()
        for pid in self._processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for mounted in self._mounts():
            subprocess.run(["umount", "-l", mounted], check=False, capture_output=True)  # noqa: S603, S607 - of this machine
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, also again after `stop`, with the containers that it had."""
        path = shutil.which("runsc") or "/usr/bin/runsc"
        runtimes = {
            "runsc": {"path": path, "runtimeArgs": list(RUNSC_ARGS)},
            UNFILTERED: {"path": path, "runtimeArgs": [one for one in RUNSC_ARGS if one != "--oci-seccomp"]},
        }
        (self.folder / "daemon.json").write_text(json.dumps({"runtimes": runtimes}))
        where = self.folder
        command = [
            "dockerd", "-H", self.host, "--data-root", f"{where}/data", "--exec-root", f"{where}/exec",
            "--pidfile", f"{where}/d.pid", "--bridge", "none", "--iptables=false",
            "--config-file", f"{where}/daemon.json",
        ]  # fmt: skip
        self._listens.clear()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a program of this machine
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            msg = f"dockerd cannot be started: {error}"
            raise SandboxUnavailable(msg, hint="`make servers` installs docker.io and runsc") from error
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        if not self._listens.wait(START_TIMEOUT_S) or self._process.poll() is not None:
            msg = f"dockerd does not start: {' '.join(self._said[-3:])[-1000:]}"
            raise SandboxUnavailable(msg, hint="it needs root, control groups, and a disk that overlays work on")

    @property
    def pid(self) -> int:
        """Of the daemon."""
        assert self._process is not None
        return self._process.pid

    def stop(self, sign: int = signal.SIGTERM) -> None:
        """End the daemon; what it runs may stay."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for name in ("d.pid", "exec/containerd/containerd.pid"):  # one that was killed has not ended its containerd
            file = self.folder / name
            with suppress(OSError, ValueError):
                if name != "d.pid":
                    os.kill(int(file.read_text()), signal.SIGKILL)
                file.unlink()

    def import_python(self, programs: Sequence[str] = PROGRAMS, reference: str = "symbi-test") -> str:
        """Make an image of this machine's Python, and give its id."""

        async def work() -> str:
            with tempfile.TemporaryFile() as root:
                write_root(root, [Path(one) for one in programs])
                root.seek(0)
                async with Engine(self.host) as engine:
                    return await engine.import_image(root, reference, ())

        self.image = anyio.run(work)
        return self.image

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._said.append(line.strip()[:500])
                del self._said[:-20]
                if _LISTENS in line:
                    self._listens.set()
        self._listens.set()  # it ended: nobody need wait any longer

    def _processes(self) -> Iterator[int]:
        """Those whose command line names our folder: containerd, shims, sandboxes."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                if str(self.folder).encode() in (entry / "cmdline").read_bytes():
                    yield int(entry.name)

    def _mounts(self) -> list[str]:
        """What is mounted below our folder, the innermost first."""
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        found = [line.split()[1] for line in lines]
        return sorted((one for one in found if one.startswith(f"{self.folder}/")), key=len, reverse=True)


@contextmanager
def python_engine() -> Iterator[DockerEngine]:
    """A running engine that has an image with Python in it."""
    with DockerEngine() as engine:
        engine.import_python()
        yield engine
