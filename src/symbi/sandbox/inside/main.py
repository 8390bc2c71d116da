"""What runs inside a container: the first process, which runs one piece of code, or one program, and tells what came of it.

This package needs Python 3.8 or newer alone, and comes on the command line (`symbi.sandbox.runner`). Frames go in on
standard input and out on standard output:

    in    HELLO     8 hexadecimal digits of length, JSON: {"nonce": 32 hexadecimal digits}
    out   PROBE     nonce, 8 hexadecimal digits of length, JSON: what the place is like
    in    PING      8 hexadecimal digits of length, JSON: {"kind": "ping"}; PONG comes back; any number of times
    in    FILE      8 hexadecimal digits of length, JSON: {"kind": "file", ...}, see `command`; any number of times
    in    REQUEST   8 hexadecimal digits of length, JSON: {"code", "inputs", limits}, or {"kind": "command", ...}
    out   ANSWER    nonce, 8 hexadecimal digits of length, JSON: {"kind", ...}

The probe is made before there is any foreign code here. The code, or the program, runs in a child, which has neither standard
output nor the nonce in its hands, but pipes; whatever the child says is hostile all the same, and the driver checks it.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from types import ModuleType
from typing import Any

from symbi.sandbox.inside import code
from symbi.sandbox.inside.frames import read_frame, write_frame
from symbi.sandbox.inside.look import probe
from symbi.sandbox.inside.process import for_signals, set_dumpable

BASE = os.environ.get("TMPDIR", "/tmp")  # where a program finds its files


def main() -> None:
    """Say what the place is like, then do one piece of work."""
    set_dumpable(False)  # our memory and files are no business of the child
    for_signals(signal.SIG_IGN)  # gVisor lets the child end the first process, where Linux would not
    nonce = str(read_frame()["nonce"])
    write_frame(nonce, probe())
    files = None
    while (request := read_frame()).get("kind") in {"ping", "file"}:
        if request["kind"] == "ping":  # whether we are still here
            write_frame(nonce, {"kind": "pong"})
            continue
        files = files or command_module().Files(BASE)
        files.take(request)
    if request.get("kind") == "command":
        program = command_module()
        lines = lines_to_the_driver(nonce) if request.get("proxy") else None
        write_frame(nonce, program.run(request, files or program.Files(BASE), lines))
    else:
        write_frame(nonce, code.run(request))
    while True:  # until whoever has heard the answer hangs up: what was used here can be read off only while we last
        read_frame()


def lines_to_the_driver(nonce: str) -> Any:
    """Only who was granted a network needs them."""
    from symbi.sandbox.inside.lines import Lines

    return Lines(partial(write_frame, nonce))


def command_module() -> ModuleType:
    """Only who runs a program needs it."""
    from symbi.sandbox.inside import command

    return command
