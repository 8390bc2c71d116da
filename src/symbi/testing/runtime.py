"""A whole runtime in a folder, from the text of its configuration and agent file."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.lowlevel

from symbi.agent.again import Patience
from symbi.clock import Clock
from symbi.config import CONFIG_NAME, parse_settings
from symbi.dsl.spec import CompiledFile
from symbi.guard.gate import no_probe
from symbi.runtime.runtime import Runtime
from symbi.types import AgentId
from symbi.wiring import compile_agents, open_runtime
from symbi.wiring.runtime import no_emit

AGENT_NAME: Final = "agent.symbi"
POLICIES_NAME: Final = "policies/operator.cedar"


async def at_once(_seconds: float) -> None:
    """Wait for nothing but others' turns."""
    await anyio.lowlevel.checkpoint()


IMPATIENT: Final = Patience(at_once)
"""What is to be tried again is, at once."""


@dataclass(frozen=True, slots=True)
class RunningRuntime:
    """An open runtime and the agent file that was made for it."""

    runtime: Runtime
    compiled: CompiledFile


@asynccontextmanager
async def open_in(  # noqa: PLR0913 - each is left out by most callers
    folder: Path,
    agent: str,
    *,
    config: str = "",
    policies: str = "",
    environ: Mapping[str, str] | None = None,
    probe: Callable[[str], None] = no_probe,
    hold_s: float | None = 0.0,
    emit: Callable[[AgentId, str], None] = no_emit,
    clock: Clock | None = None,
    patience: Patience | None = None,
) -> AsyncIterator[RunningRuntime]:
    """Write an agent file into a folder, and open a runtime there.

    Args:
        folder: Is made if it is not there.
        agent: Text of the agent file.
        config: Text of the configuration.
        policies: Text of the operator's policies, if there are any.
        environ: Variables that the configuration may come from; none if not given.
        probe: Called at named points around each effect.
        hold_s: How long a run waits for people; None: until they answer.
        emit: Takes what runs log and print.
        clock: The machine's if None.
        patience: How it waits before something is tried again; not at all if None.

    Raises:
        SymbiError: Whatever is wrong with configuration, agent file or folder.
    """
    file = _write(folder / AGENT_NAME, agent)
    if policies:
        _write(folder / POLICIES_NAME, policies)
    settings = parse_settings(config, file=folder / CONFIG_NAME, cwd=folder, environ=environ or {}, overrides={})
    compiled = compile_agents(file)
    async with open_runtime(
        settings, probe=probe, hold_s=hold_s, emit=emit, clock=clock, patience=patience or IMPATIENT
    ) as runtime:
        yield RunningRuntime(runtime, compiled)


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file
