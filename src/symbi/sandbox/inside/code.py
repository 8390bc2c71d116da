"""One piece of Python code: run in a child of the first process, within limits; what came of it."""

from __future__ import annotations

import ast
import json
import math
import os
import select
import signal
import struct
import sys
import time
import traceback
from typing import Any, Dict, List, Optional

from symbi.sandbox.inside.frames import PIECE, write_all
from symbi.sandbox.inside.look import out_of_memory_kills
from symbi.sandbox.inside.process import TICK_S, bound, end_all, ended, for_signals, forget_us, set_dumpable

CODE_FILE = "<code>"
MAX_MESSAGE_CHARS = 300


class Large(Exception):
    """The value exceeds a bound."""


class Wrong(Exception):
    """The value is not JSON."""


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
    forget_us()
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
