"""What the passes over an agent file find: a list that grows, each entry with its place."""

from symbi.dsl.ast import Span
from symbi.dsl.spec import Diagnostic

ERROR = "error"
WARNING = "warning"


class Findings:
    """Diagnostics of one file, without repetition, in the order of the source.

    Args:
        file: The file's name as the user gave it.
    """

    __slots__ = ("_found", "file")

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[Diagnostic, None] = {}

    def error(self, code: str, message: str, span: Span, hint: str = "") -> None:
        """Note something that keeps the file from being used; `code` is the part after `dsl.`."""
        self._found.setdefault(Diagnostic(ERROR, f"dsl.{code}", message, span.place(self.file), hint))

    def warning(self, code: str, message: str, span: Span, hint: str = "") -> None:
        """Note something that is allowed and probably not meant."""
        self._found.setdefault(Diagnostic(WARNING, f"dsl.{code}", message, span.place(self.file), hint))

    def later(self, what: str, span: Span, hint: str = "") -> None:
        """Refuse what parses and has no room to carry it out yet."""
        self.error("not_available", f"`{what}` is not available in this release", span, hint)

    def sorted(self) -> tuple[Diagnostic, ...]:
        """All diagnostics by line and column; errors before warnings at one place."""
        return tuple(
            sorted(self._found, key=lambda found: (found.place.line, found.place.column, found.severity, found.code))
        )
