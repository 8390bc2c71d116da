"""`run(image, command, …)` of one run: a program of an image, in a container of its own.

What a call says is read here, before the gate: each argument is of its form, or the call is an error with its place.
What comes back is nobody's word but the program's: it is untrusted, whoever named the image, and bears the labels of all
that the program was given, the words of its command among it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite

from symbi.agent.messages import Through
from symbi.agent.pieces import data_of, in_pieces, label_of, made
from symbi.agent.values import VAULT_SCHEME, Data, Secret, Value, to_json
from symbi.dsl import ast
from symbi.dsl.builtins import IMAGE
from symbi.errors import InputError, ScriptFailed
from symbi.guard.action import RunContainer
from symbi.guard.permit import Authority, Permit
from symbi.policy.flow import join
from symbi.sandbox.egress import EgressGrant, parse_grant
from symbi.sandbox.files import check_names
from symbi.sandbox.pool import Sandboxes
from symbi.sandbox.request import INPUT_BOUNDS, MAX_TIMEOUT_S
from symbi.sandbox.tier import UNREMARKABLE, RiskProfile, assess_code, raise_tier
from symbi.sandbox.values import copy_json
from symbi.types import Integrity, JsonValue, Label, Principal, SecurityTier


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """Bounds of one `python(…)` or `run(…)`.

    Attributes:
        tier: The least.
        memory_mib: Mebibytes.
        cpu_milli: Thousandths of a core.
        timeout_s: Seconds.
        profile: What is known of its agent's risk.
        network_mibitps: Mebibits a second of a granted network; 0 for what any may have.
    """

    tier: SecurityTier = SecurityTier.INTERPRETER
    memory_mib: int = 64
    cpu_milli: int = 1_000
    timeout_s: float = 30.0
    profile: RiskProfile = UNREMARKABLE
    network_mibitps: int = 0


class Containers:
    """Programs that a run has.

    Args:
        authority: Where permits are redeemed.
        sandboxes: What runs programs, by tier.
        principal: Who asks.
        limits: Bounds of one.
        file: Name of the agent file, for places.
        through: How effects get on record.
    """

    def __init__(
        self,
        authority: Authority,
        sandboxes: Sandboxes,
        principal: Principal,
        limits: CodeLimits,
        file: str,
        through: Through,
    ) -> None:
        self._authority = authority
        self._sandboxes = sandboxes
        self._principal = principal
        self._limits = limits
        self._file = file
        self._through = through

    async def run(self, image: Value, command: Value, options: Mapping[str, Value], span: ast.Span) -> Value:
        """A record of `code`, `stdout`, `stderr` and `outputs`."""
        action = await self._asked(image, command, options, span)

        async def run(permit: Permit[RunContainer]) -> JsonValue:
            permit.note("risk", permit.action.risk)
            result = await self._sandboxes.commands_for(permit.action.tier).run_command(permit)
            return {
                "code": result.code,
                "stdout": result.stdout,
                "stderr": result.stderr,
                "outputs": dict(result.outputs),
            }

        done = await self._through.perform(action, self._through.gated(action, run))
        label = join(Label(Integrity.UNTRUSTED, sources=(done.effect_id,)), action.label, done.mark)
        return await in_pieces(made(done.value, label))

    async def _asked(self, image: Value, command: Value, options: Mapping[str, Value], span: ast.Span) -> RunContainer:
        """What a call asks for; nothing has happened yet."""
        read = _Reader(self._file, span)
        network = read.network(options.get("network"))
        label = await label_of(image, command, *options.values())
        profile = self._limits.profile
        profile = replace(
            profile,
            requires_network=profile.requires_network or bool(network.endpoints),
            requires_filesystem=True,
            external_apis=(*profile.external_apis, *network.hosts),
        )
        risk = assess_code(profile, label)
        try:
            return RunContainer(
                principal=self._principal,
                slot=self._through.slot(),
                label=label,
                image=read.image(image),
                command=read.texts(command, "command"),
                inputs=await read.inputs(options.get("inputs")),
                outputs=check_names(read.texts(options.get("outputs"), "outputs"), "outputs"),
                network=tuple(map(str, network.endpoints)),
                env=read.env(options.get("env")),
                credentials=read.credentials(options.get("credentials"), network),
                tier=raise_tier(self._limits.tier, risk),
                score=risk.score,
                risk=risk.facts(),
                memory_mib=self._limits.memory_mib,
                cpu_milli=self._limits.cpu_milli,
                network_mibitps=self._limits.network_mibitps,
                timeout_s=read.timeout_s(options.get("timeout"), self._limits.timeout_s),
            )
        except InputError as error:  # of names and of what goes into files: the call's own doing
            raise read.wrong(error.message, error.hint) from None


class _Reader:
    """Reads the arguments of one call."""

    def __init__(self, file: str, span: ast.Span) -> None:
        self._file = file
        self._span = span

    def wrong(self, message: str, hint: str | None = None) -> ScriptFailed:
        """The error of a call that says what it cannot mean."""
        return ScriptFailed(message, place=self._span.place(self._file), hint=hint)

    def image(self, value: Value) -> str:
        """A text that names an image by what is in it."""
        if not isinstance(value.data, str) or not IMAGE.fullmatch(value.data):
            msg = "the image of `run(…)` must be named by digest"
            raise self.wrong(msg, "write `name@sha256:…`, or an id `sha256:…`; a tag may be another image tomorrow")
        return value.data

    def texts(self, value: Value | None, what: str) -> tuple[str, ...]:
        """A list of texts; empty where it is not given."""
        items = () if value is None or value.data is None else value.data
        if not isinstance(items, tuple):
            raise self.wrong(f"`{what}` of `run(…)` must be a list of texts")
        texts = tuple(item.data for item in items if isinstance(item.data, str))
        if len(texts) != len(items):
            raise self.wrong(f"`{what}` of `run(…)` must be a list of texts")
        if what == "command" and not (texts and texts[0]):
            raise self.wrong("a command is a program and its arguments", 'write `["program", "argument"]`')
        return texts

    async def inputs(self, value: Value | None) -> dict[str, JsonValue]:
        """What goes into files, by name."""
        fields = self._record(value, "inputs")
        check_names(fields, "inputs")
        plainly = partial(to_json, place=self._span, file=self._file)
        plain = {name: await in_pieces(data_of(item, plainly)) for name, item in fields.items()}
        copied = copy_json(plain, INPUT_BOUNDS, wrong=InputError, large=InputError)
        assert isinstance(copied, dict)
        return copied

    def network(self, value: Value | None) -> EgressGrant:
        """What it may reach."""
        addresses = dict.fromkeys(self.texts(value, "network"))
        try:
            return parse_grant(addresses, {})
        except InputError as error:
            raise self.wrong(f"`network` of `run(…)`: {error.message}", error.hint) from None

    def env(self, value: Value | None) -> dict[str, str]:
        """Texts by name."""
        fields = self._record(value, "env")
        texts = {name: item.data for name, item in fields.items() if isinstance(item.data, str)}
        if len(texts) != len(fields) or not all(fields):
            secret = any(isinstance(item.data, Secret) for item in fields.values())
            hint = (
                "a program has no secrets: name them in `credentials`, by the host that they are for"
                if secret
                else None
            )
            raise self.wrong("`env` of `run(…)` must be a record of texts", hint)
        return texts

    def credentials(self, value: Value | None, network: EgressGrant) -> dict[str, str]:
        """Paths of vault references by where they go."""
        found: dict[str, str] = {}
        for where, item in self._record(value, "credentials").items():
            if not isinstance(item.data, Secret):
                raise self.wrong("`credentials` of `run(…)` must be vault references", f"write `{VAULT_SCHEME}…`")
            found[where] = item.data.path
        try:
            parse_grant(map(str, network.endpoints), found)
        except InputError as error:
            raise self.wrong(f"`credentials` of `run(…)`: {error.message}", error.hint) from None
        return found

    def timeout_s(self, value: Value | None, otherwise: float) -> float:
        """Seconds."""
        seconds: Data = otherwise if value is None or value.data is None else value.data
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise self.wrong("`timeout` of `run(…)` must be a length of time", "write `30s`")
        if not (isfinite(seconds) and 0 < seconds <= MAX_TIMEOUT_S):
            raise self.wrong(f"`timeout` of `run(…)` is not within 0 to {MAX_TIMEOUT_S:g} s")
        return float(seconds)

    def _record(self, value: Value | None, what: str) -> Mapping[str, Value]:
        fields = {} if value is None or value.data is None else value.data
        if not isinstance(fields, Mapping):
            raise self.wrong(f"`{what}` of `run(…)` must be a record")
        return fields
