"""A memory on a real gate and store, for tests of what agents remember."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from symbi.context.keeping import MemoryKeeping
from symbi.context.kinds import MemoryTerms
from symbi.context.meanings import Meanings
from symbi.context.memory import Memory, MemoryConfig, MemoryRooms
from symbi.guard.gate import no_probe
from symbi.testing.bus_keys import KeptKeys
from symbi.testing.gate import ALLOW_ALL, Gate, open_gate
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, Principal
