"""What runs inside a container: the first process, which runs one piece of code and tells what came of it.

It needs Python 3.8 or newer alone, and comes on the command line. Frames go in on standard input and out on standard output:

    in    HELLO     8 hexadecimal digits of length, JSON: {"nonce": 32 hexadecimal digits}
    out   PROBE     nonce, 8 hexadecimal digits of length, JSON: what the place is like
    in    PING      8 hexadecimal digits of length, JSON: {"kind": "ping"}; PONG comes back; any number of times
    in    REQUEST   8 hexadecimal digits of length, JSON: {"code", "inputs", limits}
    out   ANSWER    nonce, 8 hexadecimal digits of length, JSON: {"kind", ...}

The probe is made before there is any foreign code here. The code itself runs in a child, which has neither standard
output nor the nonce in its hands, but pipes; whatever the child says is hostile all the same, and the driver checks it.
"""

from __future__ import annotations

import ast
import ctypes
import errno
import json
import math
import os
import platform
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any, Dict, List, Optional

CODE_FILE = "<code>"
MAX_FRAME = 134_217_728
MAX_MESSAGE_CHARS = 300
PIECE = 65_536
TICK_S = 0.05  # how long a child's death may go unseen
PR_SET_DUMPABLE = 4


class Large(Exception):
    """The value exceeds a bound."""


class Wrong(Exception):
    """The value is not JSON."""


# -------------------------------------------------------------------------------------------- frames
def read_exactly(count: int) -> bytes:
    """So many bytes of standard input, or the end of this process."""
    parts = []
    while count:
        part = os.read(0, min(count, PIECE))
        if not part:
            sys.exit(0)  # nobody wants anything of us any more
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def read_frame() -> Any:
    """The next frame."""
    length = int(read_exactly(8), 16)
    if length > MAX_FRAME:
        sys.exit(3)
    return json.loads(read_exactly(length).decode("utf-8"))


def write_all(number: int, data: bytes) -> None:
    """Write it all, also to a pipe that takes it piece by piece."""
    view = memoryview(data)
    while view:
        view = view[os.write(number, view) :]


def write_frame(nonce: str, what: Any) -> None:
    """Answer the driver."""
    data = json.dumps(what, ensure_ascii=False).encode("utf-8", "replace")
    write_all(1, nonce.encode() + b"%08x" % len(data) + data)


# --------------------------------------------------------------------------------------------- probe
def read_text(path: str, most: int = PIECE) -> str:
    """The beginning of a file; nothing where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""


def first_of(*paths: str) -> str:
    """The first of some small files that is there."""
    return next((text for text in (read_text(path).strip() for path in paths) if text), "")


def can_write(folder: str) -> bool:
    """Whether a file can be made in a folder."""
    path = os.path.join(folder, ".symbi-probe")
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
    except OSError:
        return False
    return True


def outside(address: str, port: int) -> str:
    """What a connection out of here meets, as a name of `errno`; empty where it is made."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as line:
        line.settimeout(0.5)
        try:
            line.connect((address, port))
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return ""


def is_filtered() -> bool:
    """Whether the filter of system calls is in force: it refuses memory files, which every kernel makes otherwise."""
    try:
        os.close(os.memfd_create("probe"))
    except PermissionError:  # a Python that cannot ask ends here, and gets no code
        return True
    return False


def kernel_says() -> str:
    """The beginning of the kernel's log, which gVisor makes up and names itself in."""
    try:
        said = ctypes.create_string_buffer(8192)
        count = ctypes.CDLL(None).klogctl(3, said, len(said) - 1)
        return said.raw[: max(0, count)].decode("utf-8", "replace")[:400]
    except (AttributeError, OSError):
        return ""


def probe() -> Dict[str, Any]:
    """What this place is like, as far as it can be seen from inside."""
    status: Dict[str, str] = {}
    for line in read_text("/proc/self/status").splitlines():
        name, _, rest = line.partition(":")
        if name in {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters"}:
            status[name] = rest.strip()
    mounts = []
    for line in read_text("/proc/self/mounts", 4 * PIECE).splitlines():
        fields = line.split()
        if len(fields) >= 4:
            mounts.append([fields[1], fields[2], fields[3]])
    limits = {}
    for name in ("NOFILE", "FSIZE", "CORE", "NPROC", "MEMLOCK"):
        limits[name] = list(resource.getrlimit(getattr(resource, "RLIMIT_" + name)))
    interfaces = [line.partition(":")[0].strip() for line in read_text("/proc/net/dev").splitlines() if ":" in line]
    return {
        "uid": list(os.getresuid()),
        "gid": list(os.getresgid()),
        "groups": sorted(os.getgroups()),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "kernel": list(os.uname())[2:4],
        "kernel_log": kernel_says(),
        "filtered": is_filtered(),
        "status": status,
        "mounts": mounts,
        "limits": limits,
        "interfaces": interfaces,
        "outside": outside("192.0.2.1", 80),  # RFC 5737: an address that is nobody's
        "writable": [folder for folder in ("/", "/usr", "/etc", "/tmp") if can_write(folder)],
        "devices": sorted(os.listdir("/dev")) if os.path.isdir("/dev") else [],
        "pids_max": first_of("/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max"),
        "memory_max": first_of("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        "swap_max": first_of("/sys/fs/cgroup/memory.swap.max", "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
    }


def out_of_memory_kills() -> int:
    """How often the kernel has killed something here for want of memory."""
    said = first_of("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
    for line in said.splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


# ----------------------------------------------------------------------------------------- the child
class Copy:
    """A value as plain JSON within bounds: every visit counts, not every object, so sharing saves nothing."""

    def __init__(self, bounds: List[int]) -> None:
        self.bytes, self.items, self.depth = bounds

    def of(self, value: Any, depth: int = 0) -> Any:
        self.items -= 1
        if self.items < 0:
            raise Large("the value has too many parts")
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            if not -(2**53) < value < 2**53:
                raise Wrong("an integer beyond 2^53 - 1 is not JSON")
            return int(value)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise Wrong("a float that is not finite is not JSON")
            return float(value)
        if isinstance(value, (dict, list, tuple)):
            if depth >= self.depth:
                raise Wrong("the value nests too deeply")
            self.spend(2)
            if not isinstance(value, dict):
                return [self.of(item, depth + 1) for item in value]
            return {self.key(key): self.of(item, depth + 1) for key, item in value.items()}
        raise Wrong("a %s is not JSON" % type(value).__name__)

    def key(self, key: Any) -> str:
        if not isinstance(key, str):
            raise Wrong("a key of type %s is not JSON" % type(key).__name__)
        return self.text(key)

    def text(self, value: str) -> str:
        self.spend(len(value) + 2)
        try:
            self.spend(len(value.encode("utf-8")) - len(value))
        except UnicodeEncodeError:
            raise Wrong("a text with a lone surrogate is not JSON") from None
        return str(value)

    def spend(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise Large("the value is too large")


def place_of(error: BaseException) -> Optional[List[int]]:
    """Line and column in the code where an error was raised: the innermost that is in the code itself."""
    if isinstance(error, SyntaxError) and error.filename == CODE_FILE:
        return [error.lineno or 1, max(1, error.offset or 1)]
    found = None
    walk = error.__traceback__
    while walk is not None:
        if walk.tb_frame.f_code.co_filename == CODE_FILE:
            column = 1
            positions = getattr(walk.tb_frame.f_code, "co_positions", None)
            if positions is not None:
                at = list(positions())[walk.tb_lasti // 2]
                column = (at[2] or 0) + 1
            found = [walk.tb_lineno, column]
        walk = walk.tb_next
    return found


def short(error: BaseException) -> str:
    """What an error says, on one line."""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "an error that cannot be told"
    return text[:MAX_MESSAGE_CHARS]


def evaluate(code: str, names: Dict[str, Any]) -> Any:
    """Run code, and give the value of its last expression."""
    tree = ast.parse(code, CODE_FILE)
    last = None
    if tree.body:
        end = tree.body[-1]
        if isinstance(end, ast.Expr):
            del tree.body[-1]
            last = ast.Expression(end.value)
    exec(compile(tree, CODE_FILE, "exec"), names)
    if last is None:
        return None
    return eval(compile(last, CODE_FILE, "eval"), names)


def outcome(request: Dict[str, Any]) -> Dict[str, Any]:
    """What comes of the code, as an answer."""
    names: Dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    names.update(request["inputs"])
    parsed = False
    try:
        compile(request["code"], CODE_FILE, "exec", ast.PyCF_ONLY_AST)
        parsed = True
        value = evaluate(request["code"], names)
        sys.stdout.flush()
        sys.stderr.flush()
        return {"kind": "value", "value": Copy(request["bounds"]).of(value)}
    except Large as error:
        return {"kind": "large", "message": short(error)}
    except Wrong as error:
        return {"kind": "wrong", "message": short(error)}
    except BaseException as error:
        name = type(error).__name__
        if not parsed:
            name = "SyntaxError"
            place = place_of(error) or [1, 1]
            return {"kind": "syntax", "exception": name, "message": short(error), "place": place}
        kind = "raised"
        if isinstance(error, MemoryError):
            kind = "memory"
        elif isinstance(error, RecursionError):
            kind = "depth"
        return {"kind": kind, "exception": name, "message": short(error), "place": place_of(error)}


def bound(name: str, most: int) -> None:
    """Set a limit of this process, for ever."""
    which = getattr(resource, "RLIMIT_" + name)
    if name == "DATA":  # what the interpreter itself has by now comes on top
        fields = read_text("/proc/self/statm").split()
        most += (int(fields[5]) if len(fields) > 5 else 0) * resource.getpagesize()
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(which, (most, most))


def set_dumpable(dumpable: bool) -> None:
    """Whether processes of the same user may look into this one."""
    try:
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)
    except (AttributeError, OSError):  # a C library without it: what the code could forge is its own answer alone
        pass


def for_signals(what: Any) -> None:
    """Ignore or restore what the code could send to this process; what Python itself ignores stays so."""
    kept = {"SIGKILL", "SIGSTOP", "SIGCHLD", "SIGPIPE", "SIGXFSZ"}
    for sign in signal.valid_signals() - {getattr(signal, name) for name in kept}:
        signal.signal(sign, what)


def child(request: Dict[str, Any], printed: int, answer: int) -> None:
    """The process of the code: everything that it has of us is closed or bounded before the code begins."""
    os.setsid()
    set_dumpable(True)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    os.closerange(3, answer)
    os.closerange(answer + 1, 256)
    for_signals(signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    kept = {
        name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", *request["env"]) if name in os.environ
    }
    os.environ.clear()
    os.environ.update(kept)
    os.chdir("/tmp" if os.path.isdir("/tmp") else "/")
    sys.stdin = open(0, encoding="utf-8")
    sys.stdout, sys.stderr = (
        open(number, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False) for number in (1, 2)
    )
    for name, most in request["limits"].items():
        bound(name, most)
    told = outcome(request)
    del request
    try:
        data = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
    except MemoryError:
        data = b'{"kind": "memory", "message": "", "place": null}'
    write_all(answer, struct.pack(">I", len(data)) + data)
    os._exit(0)


# ---------------------------------------------------------------------------------------- the parent
class Pipes:
    """What comes from the child, within bounds."""

    def __init__(self, printed: int, answer: int, most_printed: int, most_answer: int) -> None:
        self.printed, self.answer = printed, answer
        self.text, self.told = bytearray(), bytearray()
        self.most_printed, self.most_answer = most_printed, most_answer
        self.open = {printed, answer}

    def take(self, wait_s: float) -> bool:
        """Read what is there; whether anything was."""
        ready = select.select(list(self.open), [], [], wait_s)[0]
        for number in ready:
            try:
                piece = os.read(number, PIECE)
            except BlockingIOError:
                continue
            if not piece:
                self.open.discard(number)
            elif number == self.printed:
                self.text += piece
            elif len(self.told) <= self.most_answer:
                self.told += piece
        return bool(ready)

    def too_much(self) -> bool:
        return len(self.text) > self.most_printed

    def complete(self) -> Optional[bytes]:
        """The answer, once it is there as a whole; the driver judges what is in it."""
        if len(self.told) < 4:
            return None
        length = struct.unpack(">I", bytes(self.told[:4]))[0]
        if length > self.most_answer:
            return b'{"kind": "large", "message": "the value is too large"}'
        return bytes(self.told[4 : 4 + length]) if len(self.told) >= 4 + length else None


def ended(pid: int) -> Optional[int]:
    """Reap whoever has ended; the status of the child, if it is among them."""
    status = None
    while True:
        try:
            who, what = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status if status is not None else 0
        if who == 0:
            return status
        if who == pid:
            status = what


def end_all(child: int) -> None:
    """End every other process here; where this is not the first of a container, those of the child's group."""
    try:
        if os.getpid() == 1:
            os.kill(-1, signal.SIGKILL)
        else:
            os.killpg(child, signal.SIGKILL)
    except OSError:  # there is no other
        pass


def watch(pid: int, pipes: Pipes, deadline: float) -> Dict[str, Any]:
    """Wait for the child's answer, its death, or a limit; what is said of it."""
    status = None
    while True:
        pipes.take(min(TICK_S, max(0.0, deadline - time.monotonic())))
        if pipes.too_much():
            return {"kind": "printed"}
        told = pipes.complete()
        if told is not None:
            pipes.open.discard(pipes.answer)  # one is enough; who writes more keeps nobody busy
            while pipes.open and pipes.take(0.0) and not pipes.too_much():  # what was printed before the answer
                pass
            return (
                {"kind": "printed"} if pipes.too_much() else {"kind": "told", "told": told.decode("utf-8", "replace")}
            )
        if status is not None and not pipes.take(0.0):
            return {"kind": "died", "status": status, "oom": out_of_memory_kills()}
        if time.monotonic() >= deadline:
            return {"kind": "time"}
        if status is None:
            status = ended(pid)


def run(request: Dict[str, Any]) -> Dict[str, Any]:
    """Run the code of a request in a child, and give the answer."""
    printed_out, printed_in = os.pipe()
    answer_out, answer_in = os.pipe()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        try:
            child(request, printed_in, answer_in)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(70)
    os.close(printed_in)
    os.close(answer_in)
    most_printed, most_answer = request["most_printed"], request["most_answer"]
    timeout_s = request["timeout_s"]
    request.clear()  # its memory is the child's business now
    pipes = Pipes(printed_out, answer_out, most_printed, most_answer)
    for number in pipes.open:
        os.set_blocking(number, False)
    answer = watch(pid, pipes, started + timeout_s)
    end_all(pid)
    answer["duration_s"] = time.monotonic() - started
    if answer["kind"] == "told":
        answer["stdout"] = bytes(pipes.text).decode("utf-8", "replace")
    return answer


def main() -> None:
    """Say what the place is like, then do one piece of work."""
    set_dumpable(False)  # our memory and files are no business of the child
    for_signals(signal.SIG_IGN)  # gVisor lets the child end the first process, where Linux would not
    nonce = str(read_frame()["nonce"])
    write_frame(nonce, probe())
    while (request := read_frame()).get("kind") == "ping":  # whether we are still here
        write_frame(nonce, {"kind": "pong"})
    write_frame(nonce, run(request))


if __name__ == "__main__":
    main()
