"""What a child of the first process in a container may do, and how it is ended."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from typing import Any, Optional

from symbi.sandbox.inside.look import read_text

TICK_S = 0.05  # how long a child's death may go unseen
PR_SET_DUMPABLE = 4


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


def forget_us() -> None:
    """Take our modules from what foreign code can import: what it finds of that name is its image's own."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "Texts"]
    for name in [name for name in sys.modules if name.partition(".")[0] == "symbi"]:
        del sys.modules[name]
