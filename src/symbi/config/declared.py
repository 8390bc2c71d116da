"""How a key is declared: with its field, and with all that loader, `config show` and reference page need to know."""

from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from symbi.config.kinds import Kind, SecretText

T = TypeVar("T")

DECLARED: Final = "symbi"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What stands with a field; see `Key`."""

    kind: Kind[Any]
    meaning: str
    unset: str
    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One key as declared.

    Attributes:
        name: `section.key`; for a key of a named table `mcp.servers.NAME.key`.
        section: Name of the section.
        field: Name of the field.
        kind: How a value is read and shown.
        default: Its value where nobody sets it; None where there is none.
        required: It has to be given wherever its table is.
        meaning: One line.
        unset: What None means.
        variables: Environment variables, the systematic one first; none for keys of named tables.
    """

    name: str
    section: str
    field: str
    kind: Kind[Any]
    default: object
    required: bool
    meaning: str
    unset: str
    variables: tuple[str, ...]

    @property
    def secret(self) -> bool:
        """It is read from the environment alone and never shown."""
        return isinstance(self.kind, SecretText)

    def show(self, value: object) -> str:
        """A value as text; what None means where there is none."""
        return f"({self.unset})" if value is None else self.kind.show(value)


def declare(default: T, kind: Kind[Any], meaning: str, *, unset: str = "unset", also: tuple[str, ...] = ()) -> T:
    """A field with its default; `also` are environment variables beside the systematic one."""
    return field(default=default, metadata={DECLARED: Declaration(kind, meaning, unset, also)})


def require(kind: Kind[T], meaning: str) -> T:
    """A field without a default."""
    return cast("T", field(metadata={DECLARED: Declaration(kind, meaning, "", ())}))
