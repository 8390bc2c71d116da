"""The interpreter sandbox without a gate before it, for tests and measurements of the driver itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from symbi.adapters.monty import MontySandbox
from symbi.clock import SystemClock
from symbi.guard.permit import Authority
from symbi.testing.contracts import SandboxUnderTest


@asynccontextmanager
async def open_interpreter(*, workers: int = 1) -> AsyncIterator[SandboxUnderTest]:
    """A running interpreter driver with an authority of its own.

    Raises:
        SandboxUnavailable: It is not installed, or does not answer.
    """
    authority = Authority(SystemClock())
    async with MontySandbox(authority, workers=workers) as driver:
        yield SandboxUnderTest(driver, authority)
