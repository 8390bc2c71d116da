"""What a place where code runs uses."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SandboxUse:
    """What a container, or whatever code runs in, has used and uses.

    Attributes:
        cpu_ns: Processor time since it was made, in nanoseconds.
        memory_bytes: Memory now, without what is only kept of files.
        peak_bytes: The most that it ever was.
        own_bytes: What it may take of that beside the code.
    """

    cpu_ns: int
    memory_bytes: int
    peak_bytes: int
    own_bytes: int = 0
