"""A tool that passed verification, and that it is still what passed.

`VerifiedTool.confirm` is asked at least twice in every call, on the event loop. Canonical form and signature of a large
definition take some 20 ms, so they are found out once, on a thread. A *print* is taken beside them: SHA-256 of all of the
definition as plain JSON, which takes a fraction of a millisecond. As long as the print is the same, everything that was
verified is, bit by bit; where it is not, all of it is checked again.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from symbi.errors import InternalError, PinMismatch, SymbiError
from symbi.guard.action import ToolRef
from symbi.guard.outcome import decode_error, encode_error
from symbi.tools.judge import VerificationMode
from symbi.tools.manifest import ToolEntry
from symbi.tools.port import ToolDefinition
from symbi.tools.review import covered_definition
from symbi.tools.schemapin import PublicKey, digest_of, fingerprint, signature_of, verify
from symbi.tools.schemas import Schema
from symbi.tools.screen import Finding


@dataclass(frozen=True, slots=True)
class Proof:
    """That a definition was verified. `ToolVerifier` alone makes one.

    Attributes:
        digest: SHA-256 (hex) of all of the definition, which was found out then.
        key: Under which its signature held then, or None.
        print: Of the definition (`print_of`), taken beside; empty where it has none.
    """

    digest: str
    key: PublicKey | None
    print: str


def print_of(definition: ToolDefinition) -> str:
    """SHA-256 (hex) of all members of a definition as they stand in memory; empty where they are not plain JSON."""
    members = [
        definition.server,
        definition.name,
        definition.description,
        definition.input_schema,
        definition.output_schema,
        definition.title,
        definition.annotations,
        definition.meta,
        definition.rest,
    ]
    try:
        return hashlib.sha256(json.dumps(members).encode()).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return ""


@dataclass(frozen=True, slots=True)
class VerifiedTool:
    """A tool that passed the configured verification. `ToolVerifier` alone makes one, so having one is the proof.

    Attributes:
        definition: As the server gave it.
        ref: What the gate sees of it; `ref.verified` says that a signature holds.
        arguments: Validates its arguments.
        output: Validates its structured output, if it declares any.
        entry: What the operator's manifest says of it.
        key: The key that signed it, or None.
        mode: The mode that it passed.
        proof: That it did.
        findings: What the screen of its definition found.
    """

    definition: ToolDefinition
    ref: ToolRef
    arguments: Schema = field(repr=False, compare=False)
    output: Schema | None = field(repr=False, compare=False)
    entry: ToolEntry
    key: PublicKey | None = field(repr=False, compare=False)
    mode: VerificationMode
    proof: Proof = field(repr=False, compare=False)
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.proof, Proof):
            msg = "a verified tool is made by the verifier alone"  # type: ignore[unreachable] # to what keeps to the types
            raise InternalError(msg, code="internal.unverified")

    def confirm(self) -> None:
        """Return if the definition is still what was verified.

        Raises:
            PinMismatch: Its digest is another.
            SignatureInvalid: Its signature does not hold.
        """
        if self.mode is VerificationMode.DISABLED:
            return
        proof = self.proof
        is_proven = bool(proof.print) and proof.digest == self.ref.schema_digest and proof.key is self.key
        if is_proven and print_of(self.definition) == proof.print:
            return
        if digest_of(covered_definition(self.definition)) != self.ref.schema_digest:
            msg = f"tool `{self.ref.name}` is not what was verified"
            raise PinMismatch(msg, tool=self.ref.name)
        if self.key is not None:
            verify(self.definition, signature_of(self.definition) or "", self.key)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A tool that may not be called, and why; and what the screen of its definition found."""

    definition: ToolDefinition
    error: SymbiError
    findings: tuple[Finding, ...] = ()


def why_withdrawn(tool: VerifiedTool, said: Mapping[str, SymbiError]) -> SymbiError | None:
    """What was said of a tool by its name, or by its fingerprint of the key that signs it, while it was verified."""
    by_name = said.get(tool.ref.name)
    return by_name if by_name is not None or tool.key is None else said.get(fingerprint(tool.key))


def anew(error: SymbiError) -> SymbiError:
    """The same error as a new exception, for one that is kept must not gather the traces of all who met it."""
    return decode_error(encode_error(error))
