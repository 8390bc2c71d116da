"""The search for what is left of a person: every byte of every file, in bounded memory, for all patterns at once.

Finds name the file, the offset, and why and in which form it was looked for; never what was found.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ahocorasick_rs import BytesAhoCorasick

from symbi.compliance.forms import Pattern, Sought, Wanted
from symbi.types import JsonValue

MAX_PATTERNS: Final = 400_000  # forms of values; an automaton of a few hundred megabytes
MAX_FINDS: Final = 1000  # finds that are told with their place; all are counted
CHUNK_BYTES: Final = 1_048_576  # read at a time


@dataclass(frozen=True, slots=True)
class Find:
    """Something that is left.

    Attributes:
        place: File, from the folder that was searched; or a cell of the store.
        offset: Bytes from its beginning.
        sought: Why it was looked for.
        form: In which form it stands there.
    """

    place: str
    offset: int
    sought: Sought
    form: str

    def as_json(self) -> dict[str, JsonValue]:
        """For certificates."""
        return {"place": self.place, "offset": self.offset, "sought": self.sought.value, "form": self.form}


@dataclass(slots=True)
class Findings:
    """What a search has found.

    Attributes:
        finds: The first of them.
        count: How many there are, by reason.
        places: How many files, and large values of the store by themselves, were searched.
        size: Their bytes.
        unread: What could not be read, and why.
    """

    finds: list[Find] = field(default_factory=list)
    count: dict[Sought, int] = field(default_factory=dict)
    places: int = 0
    size: int = 0
    unread: list[str] = field(default_factory=list)

    def note(self, find: Find) -> None:
        """Take up a find."""
        self.count[find.sought] = self.count.get(find.sought, 0) + 1
        if len(self.finds) < MAX_FINDS:
            self.finds.append(find)

    @property
    def residue(self) -> int:
        """How many finds tell of the subject."""
        return sum(count for sought, count in self.count.items() if sought is not Sought.ORDINARY)

    @property
    def clean(self) -> bool:
        """Everything was read, and nothing was found that tells of the subject."""
        return not self.residue and not self.unread

    def as_json(self, wanted: Wanted) -> dict[str, JsonValue]:
        """For certificates: what was searched, for how much, and what was found where."""
        return {
            "places": self.places,
            "bytes": self.size,
            "searched_for": {sought.value: count for sought, count in sorted(wanted.values.items())},
            "too_short": wanted.too_short,
            "left_out": wanted.left_out,
            "shared_words": wanted.shared,
            "residue": self.residue,
            "finds": [find.as_json() for find in self.finds if find.sought is not Sought.ORDINARY],
            "ordinary_words": self.count.get(Sought.ORDINARY, 0),
            "ordinary_finds": [find.as_json() for find in self.finds if find.sought is Sought.ORDINARY],
            "unread": list(self.unread),
        }


class Search:
    """Looks for patterns in streams of bytes.

    Args:
        patterns: What to look for, by its bytes.
    """

    def __init__(self, patterns: Mapping[bytes, Pattern]) -> None:
        self._patterns: Sequence[Pattern] = list(patterns.values())
        self._automaton = BytesAhoCorasick([pattern.data for pattern in self._patterns]) if self._patterns else None
        self._longest = max((len(pattern.data) for pattern in self._patterns), default=0)
        self.findings = Findings()

    def look(self, place: str, chunks: Iterable[bytes]) -> None:
        """Search one stream; what stands across the end of a chunk is found too.

        Raises:
            OSError: The stream cannot be read.
        """
        self.findings.places += 1
        buffer, start, told = b"", 0, 0  # where the buffer begins, and how far what ends in it was told
        for chunk in chunks:
            self.findings.size += len(chunk)
            buffer += chunk
            end = start + len(buffer)
            # What ends with the buffer waits for the byte beside it.
            self._tell(place, buffer, start, told, end - 1)
            told = end
            kept = buffer[-(self._longest + 1) :]
            start, buffer = end - len(kept), kept
        self._tell(place, buffer, start, told, told)

    def shown(self, path: str) -> str:
        """The name of a file for people; a part of it in which something is found is withheld, and is a find itself."""
        parts = path.split("/")
        hits = [self._first(part) for part in parts]
        whole = self._first(path)
        if whole is None:
            return _text(path)
        shown = "/".join("(name withheld)" if hit else _text(part) for part, hit in zip(parts, hits, strict=True))
        if not any(hits):
            shown = "(name withheld)"
        self.findings.note(Find(shown, 0, whole.sought, f"file name, {whole.form}"))
        return shown

    def _first(self, text: str) -> Pattern | None:
        """The first pattern in a text that tells of the subject."""
        if self._automaton is None:
            return None
        matches = self._automaton.find_matches_as_indexes(text.encode("utf-8", "surrogateescape"), overlapping=True)
        found = (self._patterns[index] for index, _, _ in matches)
        return next((pattern for pattern in found if pattern.sought is not Sought.ORDINARY), None)

    def _tell(self, place: str, buffer: bytes, start: int, told: int, upto: int) -> None:
        """Note what ends in (told - 1, upto]: an end at `told` was not told yet."""
        if self._automaton is None:
            return
        for index, first, last in self._automaton.find_matches_as_indexes(buffer, overlapping=True):
            if told <= start + last <= upto:
                pattern = self._patterns[index]
                if not (pattern.whole and _beside_digits(buffer, first, last)):
                    self.findings.note(Find(place, start + first, pattern.sought, pattern.form))


def _text(name: str) -> str:
    """A name of a file as a certificate can hold it, also where its bytes are no text."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def set_apart(wanted: Wanted, texts: Iterable[bytes]) -> None:
    """Count what was opened and stands in these texts too, which people wrote for everybody, among the ordinary words.

    A name, and a value that somebody gave, stays what it is.

    Args:
        wanted: What is to be looked for.
        texts: Policies, definitions of tools, the configuration.
    """
    opened = [pattern for pattern in wanted.patterns.values() if pattern.sought is Sought.OPENED]
    if not opened:
        return
    automaton = BytesAhoCorasick([pattern.data for pattern in opened])
    shared = {
        opened[index].value
        for text in texts
        for index, _, _ in automaton.find_matches_as_indexes(text, overlapping=True)
    }
    for pattern in opened:
        if pattern.value in shared:
            wanted.patterns[pattern.data] = replace(pattern, sought=Sought.ORDINARY)
    wanted.shared = len(shared)


def search_files(wanted: Wanted, files: Callable[[], Iterable[tuple[str, Iterator[bytes]]]]) -> Findings:
    """Search files for all that is wanted.

    Args:
        wanted: What to look for.
        files: Their names and bytes; what is gone before it is read was not there.
    """
    search = Search(wanted.patterns)
    for path, chunks in files():
        shown = search.shown(path)
        try:
            search.look(shown, chunks)
        except FileNotFoundError:
            continue
        except OSError as error:
            search.findings.unread.append(f"{shown}: {error.strerror or type(error).__name__}")
    return search.findings


def _beside_digits(buffer: bytes, first: int, last: int) -> bool:
    return buffer[max(0, first - 1) : first].isdigit() or buffer[last : last + 1].isdigit()


__all__ = ["CHUNK_BYTES", "MAX_PATTERNS", "Find", "Findings", "Search", "Wanted", "search_files", "set_apart"]
