"""What a checked agent file compiles to: plain values that the floors above take."""

from dataclasses import dataclass, field

from symbi.dsl import ast
from symbi.dsl.timetable import Timetable
from symbi.errors import Place
from symbi.types import AgentId, JsonValue, ResourceLimits, SecurityTier


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """One Cedar policy made from a rule of an agent file.

    Attributes:
        id: `file.symbi:line`, with `#capabilities` for the bound that capabilities set.
        text: Cedar source of exactly one policy, without an `@id`.
        place: The rule it was made from.
    """

    id: str
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class MemorySpec:
    """The terms of the memories of a file's agents, as far as it says anything of them.

    Attributes:
        name: As the file calls it.
        retention_days: After how long what is remembered is deleted.
        vector_weight, keyword_weight: How much meaning and words count where something is looked for; together 1.
    """

    name: str = ""
    retention_days: float | None = None
    vector_weight: float | None = None
    keyword_weight: float | None = None


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent, ready to be created.

    Attributes:
        id: The agent's name.
        file: Source file as the user named it.
        source_digest: SHA-256 (hex) of the whole source file; a run refuses to resume under another one.
        parameters: Names and types of the inputs, in order.
        capabilities: Tools (`server.tool`, `server.*`) and built-in effects (`python`, `log` …) that the agent may
            ever be allowed; None where the file sets no bound.
        sandbox: Where `python(…)` runs, if the file says so.
        limits: From the `with` attributes.
        assumed: Names of those limits that the file does not set and that say nothing of its code.
        settings: Further `with` attributes (privacy, security, requires, communication, model) as JSON.
        policies: Cedar policies of this agent, in file order.
        functions: Functions of the agent and of the file by name.
        memory: The terms of what it remembers.
        body: What runs: the `with` block, or else the body of `main`; None for a file of declarations alone.
    """

    id: AgentId
    file: str
    source_digest: str
    parameters: tuple[ast.Parameter, ...] = ()
    capabilities: tuple[str, ...] | None = None
    sandbox: SecurityTier | None = None
    limits: ResourceLimits = field(default_factory=ResourceLimits)
    assumed: frozenset[str] = frozenset()
    settings: tuple[tuple[str, JsonValue], ...] = ()
    policies: tuple[CompiledPolicy, ...] = ()
    functions: tuple[ast.Function, ...] = ()
    body: ast.Block | None = None
    memory: MemorySpec = MemorySpec()


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """When an agent of the file is run.

    Attributes:
        name: Of the schedule.
        agent: Which agent.
        timetable: When it is due.
        one_shot: Only the first time.
        deliver: The topic on which the value of each run is published; empty for none.
    """

    name: str
    agent: AgentId
    timetable: Timetable
    one_shot: bool = False
    deliver: str = ""


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding of the checker.

    Attributes:
        severity: `error` or `warning`.
        code: Stable, `dsl.reason`.
        message: One line, lower case.
        place: Where.
        hint: What to do; may be empty.
    """

    severity: str
    code: str
    message: str
    place: Place
    hint: str = ""

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.place}: {self.severity}: {self.message}{hint}"


@dataclass(frozen=True, slots=True)
class CompiledFile:
    """All agents, free-standing policies and schedules of one file."""

    file: str
    agents: tuple[AgentSpec, ...]
    policies: tuple[CompiledPolicy, ...]
    metadata: tuple[tuple[str, JsonValue], ...] = ()
    schedules: tuple[ScheduleSpec, ...] = ()
