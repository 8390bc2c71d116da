"""The process that reads documents: frames in, frames out. What it meets ends it, and nothing else.

It has no files but its pipes, writes none, has bounded memory and, for each document, bounded processor time; whoever
started it ends it where the time of the clock is up. A frame is four bytes with a length, and MessagePack.
"""

import ctypes
import os
import resource
import signal
import sys
from typing import BinaryIO, Final

import msgspec

from symbi.errors import InputError
from symbi.knowledge.extracted import Extracted
from symbi.knowledge.readers import read_document

MAX_FRAME_BYTES: Final = 1 << 28
_LENGTH_BYTES: Final = 4
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_OPEN_FILES: Final = 16


class Job(msgspec.Struct, frozen=True):
    """One document to read: name and content, and how many seconds of processor time it may take."""

    name: str
    data: bytes
    cpu_s: int


class Result(msgspec.Struct, frozen=True):
    """What was read, or why it was not."""

    kind: str = ""
    extracted: Extracted | None = None
    error: str = ""
    code: str = ""


def frame(data: bytes) -> bytes:
    """A frame."""
    return len(data).to_bytes(_LENGTH_BYTES) + data


def confine(memory_bytes: int) -> None:
    """Take from this process what reading does not need."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for name, most in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        resource.setrlimit(name, (most, most))


def work(job: Job) -> Result:
    """Read one document."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + job.cpu_s + 1, resource.RLIM_INFINITY)
    )
    try:
        kind, extracted = read_document(job.data, job.name)
    except InputError as error:
        return Result(error=error.message, code=error.code)
    except RecursionError:
        return Result(error="it is nested too deeply", code="knowledge.malformed")
    except MemoryError:
        return Result(error="it takes more memory than one document may", code="knowledge.too_large")
    return Result(kind, extracted)


def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
    """Read documents until nobody asks for more."""
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Job)
    while head := stdin.read(_LENGTH_BYTES):
        job = decoder.decode(stdin.read(int.from_bytes(head)))
        stdout.write(frame(encoder.encode(work(job))))
        stdout.flush()


def main() -> None:
    """`python -I -m symbi.knowledge.reading MEMORY_BYTES`."""
    confine(int(sys.argv[1]))
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
        serve(sys.stdin.buffer, out)


if __name__ == "__main__":
    main()
