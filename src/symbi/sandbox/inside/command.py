"""One program of the image: run as a child of the first process, within limits; what it said, and the files it wrote.

What comes before the request are its files, each in pieces: {"kind": "file", "name", "data": base64}; the pieces of one
come one after the other. The request:

    {"kind": "command", "argv", "env", "inputs", "outputs", "timeout_s", "limits", "most_printed", "most_output"}

Its answer has a "kind": "ended" ("status" as of `wait`, "stdout", "stderr", "outputs", "oom"), "time", "printed",
"staging" (a file could not be put there), "exec" (the program could not be begun); the last two with a name of `errno`.

Outputs are collected when every process of the program is dead: nothing changes while it is looked at. Each is opened
without following a link, must be a regular file, and is read up to a bound; what is none has a "problem" instead.
"""

from __future__ import annotations

import base64
import errno
import os
import select
import signal
import stat
import sys
import time
import traceback
from typing import Any, Dict, List, Optional, Tuple

from symbi.sandbox.inside.frames import PIECE, read_frame
from symbi.sandbox.inside.look import out_of_memory_kills
from symbi.sandbox.inside.process import TICK_S, bound, end_all, ended, for_signals, set_dumpable

INPUTS = "in"
OUTPUTS = "out"
LAST_S = 3.0  # until every process that was killed is gone
NONE: Tuple[List[int], List[int]] = ([], [])


class Channels:
    """What else goes over our standard streams while a program runs: by itself, nothing."""

    def descriptors(self) -> Tuple[List[int], List[int]]:
        """What is to be read from, and to be written to."""
        return NONE

    def ready(self, readers: List[int], writers: List[int]) -> None:
        """Some of them are ready."""

    def take(self, frame: Dict[str, Any]) -> None:
        """A frame has come in."""


class Files:
    """The folders of a program: what goes in, and what comes out.

    Args:
        base: Where they are made.
    """

    def __init__(self, base: str) -> None:
        self.base = base
        self.failed = ""
        self.made = False
        self.names: List[str] = []

    def path(self, *parts: str) -> str:
        return os.path.join(self.base, *parts)

    def make(self) -> None:
        """Make both folders, once."""
        if not self.made:
            self.made = True
            os.mkdir(self.path(INPUTS), 0o700)
            os.mkdir(self.path(OUTPUTS), 0o700)

    def take(self, frame: Dict[str, Any]) -> None:
        """One piece of a file that goes in. What fails is told as the answer to the request."""
        if self.failed:
            return
        name, data = frame["name"], base64.b64decode(frame["data"])
        first = name not in self.names
        try:
            self.make()
            how = os.O_WRONLY | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if first else os.O_APPEND)
            number = os.open(self.path(INPUTS, name), how, 0o600)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(number, view) :]
            finally:
                os.close(number)
        except OSError as error:
            self.failed = name_of(error)
        if first:
            self.names.append(name)

    def close(self) -> None:
        """Nothing more goes in: files and their folder are for reading."""
        try:
            self.make()
            for name in self.names:
                os.chmod(self.path(INPUTS, name), 0o444)
            os.chmod(self.path(INPUTS), 0o555)
        except OSError as error:
            self.failed = self.failed or name_of(error)

    def collect(self, names: List[str], most: int) -> List[Dict[str, Any]]:
        """What of these is there: its bytes, or what is wrong with it; all together no more than so many."""
        found: List[Dict[str, Any]] = []
        for name in names:
            one: Dict[str, Any] = {"name": name}
            try:
                folder = os.open(self.path(OUTPUTS), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    data = read_file(name, folder, most)
                finally:
                    os.close(folder)
                most -= len(data)
                one["data"] = base64.b64encode(data).decode("ascii")
            except OSError as error:
                one["problem"] = name_of(error)
            found.append(one)
        return found


def name_of(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, type(error).__name__)


def read_file(name: str, folder: int, most: int) -> bytes:
    """A regular file, as a whole; of a large one nothing (`EFBIG`), of anything else nothing (`EINVAL`)."""
    how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    number = os.open(name, how, dir_fd=folder)
    try:
        what = os.fstat(number)
        if not stat.S_ISREG(what.st_mode):
            raise OSError(errno.EINVAL, "no regular file")
        if what.st_size > most:  # a sparse one takes no room, and would take all of ours
            raise OSError(errno.EFBIG, "too large")
        parts: List[bytes] = []
        while most >= 0:
            part = os.read(number, min(PIECE, most + 1))
            if not part:
                return b"".join(parts)
            parts.append(part)
            most -= len(part)
        raise OSError(errno.EFBIG, "too large")
    finally:
        os.close(number)


def child(request: Dict[str, Any], base: str, pipes: Tuple[int, int, int]) -> None:
    """Become the program; where that cannot be, tell why."""
    printed, complained, failed = pipes
    os.setsid()
    set_dumpable(True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(printed, 1)
    os.dup2(complained, 2)
    os.dup2(failed, 3, inheritable=False)
    os.closerange(4, 256)
    for_signals(signal.SIG_DFL)
    for sign in (signal.SIGPIPE, signal.SIGXFSZ):  # what Python itself ignores, a program does not expect to be
        signal.signal(sign, signal.SIG_DFL)
    os.chdir(base)
    for name, most in request["limits"].items():
        bound(name, most)
    try:
        os.execvpe(request["argv"][0], request["argv"], request["env"])
    except (OSError, ValueError) as error:
        code = name_of(error) if isinstance(error, OSError) else "EINVAL"
        os.write(3, code.encode("ascii"))
        os._exit(127)


class Output:
    """What comes from a program by its pipes, bounded together."""

    def __init__(self, numbers: Tuple[int, int, int], most: int) -> None:
        self.texts = {number: bytearray() for number in numbers}
        self.numbers = numbers
        self.open = set(numbers)
        self.most = most
        for number in numbers:
            os.set_blocking(number, False)

    def read(self, ready: List[int]) -> None:
        for number in ready:
            if number in self.open:
                try:
                    piece = os.read(number, PIECE)
                except BlockingIOError:
                    continue
                self.texts[number] += piece
                if not piece:
                    self.open.discard(number)

    def rest(self) -> None:
        """What is left in the pipes of those that are dead."""
        while self.open and not self.too_much():
            ready = select.select(list(self.open), [], [], 0)[0]
            if not ready:
                return
            self.read(ready)

    def too_much(self) -> bool:
        return sum(map(len, self.texts.values())) > self.most

    def text(self, which: int) -> str:
        return bytes(self.texts[self.numbers[which]]).decode("utf-8", "replace")


def watch(pid: int, output: Output, deadline: float, lines: Channels) -> Dict[str, Any]:
    """Wait for the program's end, or a limit."""
    status: Optional[int] = None
    while True:
        status = ended(pid)
        if status is not None:
            return {"kind": "ended", "status": status}
        if output.too_much():
            return {"kind": "printed"}
        left = deadline - time.monotonic()
        if left <= 0:
            return {"kind": "time"}
        readers, writers = lines.descriptors()
        frames = [0] if type(lines) is not Channels else []  # nobody else says anything while a program runs
        ready = select.select([*output.open, *readers, *frames], writers, [], min(TICK_S, left))
        output.read(ready[0])
        if frames and 0 in ready[0]:
            lines.take(read_frame())
        if readers or writers:
            lines.ready([one for one in ready[0] if one in readers], ready[1])


def end(pid: int) -> None:
    """End every process of the program, and wait until they are gone."""
    deadline = time.monotonic() + LAST_S
    while True:
        end_all(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        if time.monotonic() >= deadline:
            return
        select.select([], [], [], 0.002)


def run(request: Dict[str, Any], files: Files, lines: Optional[Channels] = None) -> Dict[str, Any]:
    """Run a program, and tell what came of it."""
    files.close()
    if files.failed:
        return {"kind": "staging", "errno": files.failed}
    pairs = [os.pipe() for _ in range(3)]
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            child(request, files.base, (pairs[0][1], pairs[1][1], pairs[2][1]))
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            os._exit(70)
    for _, inner in pairs:
        os.close(inner)
    output = Output((pairs[0][0], pairs[1][0], pairs[2][0]), request["most_printed"])
    answer = watch(pid, output, started + request["timeout_s"], lines or Channels())
    answer["duration_s"] = time.monotonic() - started
    end(pid)
    if answer["kind"] != "ended":
        return answer
    output.rest()
    if output.too_much():
        return {"kind": "printed"}
    refused = output.text(2)
    if refused:
        return {"kind": "exec", "errno": refused[:20]}
    answer["oom"] = out_of_memory_kills()
    answer["stdout"], answer["stderr"] = output.text(0), output.text(1)
    answer["outputs"] = files.collect(request["outputs"], request["most_output"])
    return answer
