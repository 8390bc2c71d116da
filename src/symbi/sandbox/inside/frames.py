"""Frames of the first process in a container: what it is told on standard input, and says on standard output."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

MAX_FRAME = 134_217_728
PIECE = 65_536


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
