"""Where the values of a client's calls come from, for the inside of a foreign agent nobody sees.

A session remembers what each answer held. Of an argument of a later call it says, by `symbi.policy.inference`, how far
it may be believed. Of its confidentiality this module says more exactly: it is that of whatever confidential text shares
a part with it, plain, encoded, or split over several arguments, and of nothing else that was read. So one secret does
not close a session. A value that shares nothing with anything is the agent's own: its integrity is untrusted once
something untrusted was read, its source is `agent`, and policies know it by `context.unexplained`.

What is remembered is bounded. Beyond the bound, everything counts as read, and as confidential as anything that was.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ahocorasick_rs import AhoCorasick

from symbi.policy.fields import Role, ToolFlow
from symbi.policy.flow import CONFIDENTIALITY_RANK, join
from symbi.policy.inference import CallLabels, FlowSession
from symbi.policy.matching import Hay, Needle
from symbi.policy.material import pieces
from symbi.policy.normal import decodings, squeezed
from symbi.policy.sinks import Leaf, call_facts, is_confidential, leaves
from symbi.types import Confidentiality, Integrity, JsonValue, Label

AGENT: Final = "agent"
"""The source of a value of which nobody knows where it comes from: the agent made it up, or its user wrote it."""
MIN_PART_CHARS: Final = 6  # of letters and digits that a part of a secret is known by, if a digit is among them
MIN_WORDS_CHARS: Final = 12  # likewise, of letters alone: shorter ones are words that stand anywhere
MIN_WHOLE_CHARS: Final = 3  # a shorter confidential value is not looked for
MAX_COMPARED_CHARS: Final = 65_536  # letters and digits of one call; more counts as made of everything
LEAST_CHARS: Final = 64  # as which a shorter text counts
MAX_WORK: Final = 50_000_000  # values of one call, times characters they are held against: half a second, or so
UNMARKED: Final = Label()


@dataclass(slots=True)
class _Kept:
    """A confidential text."""

    hay: Hay
    whole: str
    label: Label


@dataclass(slots=True)
class SessionLabels:
    """What one session has read.

    Args:
        most_chars: Text that is remembered, of each kind.
    """

    most_chars: int
    _flow: FlowSession = field(init=False)
    _kept: dict[str, _Kept] = field(init=False, default_factory=dict)
    _size: int = field(init=False, default=0)
    _secret: Label = field(init=False, default_factory=Label)

    def __post_init__(self) -> None:
        self._flow = FlowSession(most_chars=self.most_chars)

    @property
    def size(self) -> int:
        """Characters that arguments are held against."""
        return self._flow.size + self._size

    def hear(self, words: str) -> None:
        """Take this for all that the user wrote, as a host says that may."""
        self._flow.hear(words)

    def judge(
        self, flow: ToolFlow, arguments: Mapping[str, JsonValue], said: Mapping[str, Label] | None = None
    ) -> CallLabels:
        """The labels of a call's arguments. Nothing is remembered.

        Args:
            flow: What the manifest declares of the tool.
            arguments: The arguments, as JSON.
            said: What a host says that may: the label of an argument, by its name. What is found stays as confidential.
        """
        said = said or {}
        if self._is_too_much(arguments):
            whole = join(self._flow.read, self._secret)
            every = dict.fromkeys(arguments, whole)
            return CallLabels(every, whole, call_facts(flow, arguments, every, whole))
        found = self._flow.judge(flow, arguments)
        secret = self._confidential(arguments)
        labels: dict[str, Label] = {}
        confidential: set[str] = set()
        for name, value in arguments.items():
            own = found.labels[name]
            if own.integrity is Integrity.UNTRUSTED and not self._explains(value):
                own = replace(own, sources=(AGENT,))
            if name in said:
                own = replace(said[name], sources=own.sources)
            label = _as_confidential(own, secret[name], said.get(name))
            labels[name] = label
            if is_confidential(label) and self._counts(flow, name, value):
                confidential.add(name)
        clean = {name for name, label in said.items() if label.integrity is not Integrity.UNTRUSTED}
        dirty = {name for name in said if name in found.facts.sinks} - clean
        facts = replace(
            found.facts,
            tainted=(found.facts.tainted - clean) | dirty,
            unexplained=found.facts.unexplained - set(said),
            confidential=frozenset(confidential),
        )
        return CallLabels(labels, join(*labels.values()), facts)

    def _is_too_much(self, arguments: Mapping[str, JsonValue]) -> bool:
        """Whether it would take too long to hold every value of a call against all that was read."""
        most = MAX_WORK // (self._flow.size + self._size + 1)
        return any(number > most for number, _ in enumerate(leaves(arguments), 1))

    def claim(self, values: Iterable[JsonValue]) -> None:
        """Take values for the agent's own: they shared nothing with anything that was read when they were first used."""
        for value in values:
            for leaf in leaves(value):
                self._flow.claim(leaf.value)

    def observe(
        self,
        flow: ToolFlow,
        arguments: Mapping[str, JsonValue],
        output: JsonValue,
        source: str,
        *,
        mark: Label = UNMARKED,
        given: Label = UNMARKED,
    ) -> None:
        """Remember what a call, or another question, has answered; as `FlowSession.observe`.

        What a tool makes of something confidential is as confidential; but for the `sent` or `ok` that it may say.

        Args:
            flow: What the manifest declares of the tool.
            arguments: What it was called with.
            output: A text, or JSON.
            source: The effect.
            mark: What policies raise the label of the answer to; untrusted where the tool says that it failed.
            given: The label of what it was called with, of which only the confidentiality counts.
        """
        believed = ToolFlow() if mark.integrity is Integrity.UNTRUSTED else flow
        self._flow.observe(believed, arguments, output, source)
        inherited = replace(UNMARKED, confidentiality=given.confidentiality, categories=given.categories)
        for piece in pieces(flow, output, source):
            label = join(piece.label, mark)
            if any(_parts(squeezed(piece.text))):
                label = join(label, inherited)
            if piece.text.strip() and label.confidentiality is not Confidentiality.PUBLIC:
                self._keep(piece.text, label)

    def _keep(self, text: str, label: Label) -> None:
        self._secret = join(self._secret, label)
        known = self._kept.get(text)
        if known is None:
            self._size += max(len(text), LEAST_CHARS)
            if self._size > self.most_chars:
                return
            known = self._kept[text] = _Kept(Hay(text), squeezed(text), label)
        known.label = join(known.label, label)

    def _explains(self, value: JsonValue) -> bool:
        return any(self._flow.explains(leaf.value) for leaf in leaves(value))

    def _counts(self, flow: ToolFlow, name: str, value: JsonValue) -> bool:
        return any(flow.role(leaf.steps) is not Role.PLAIN for leaf in leaves(value, (name,)))

    # --- what is confidential ---------------------------------------------------------------------

    def _confidential(self, arguments: Mapping[str, JsonValue]) -> dict[str, Label]:
        """The label of the confidential texts that each argument has a part of."""
        if not self._kept and self._size <= self.most_chars:
            return dict.fromkeys(arguments, Label())
        texts = {name: [_text(leaf) for leaf in leaves(value, (name,))] for name, value in arguments.items()}
        long = sum(len(text) for several in texts.values() for text in several) > MAX_COMPARED_CHARS
        if long or self._size > self.most_chars:
            return dict.fromkeys(arguments, self._secret)
        found: dict[str, Label] = {}
        for name, several in texts.items():
            whole = ["".join(several)] if len(several) > 1 else []  # encoded, and cut into pieces
            found[name] = join(*self._shared([form for text in (*several, *whole) for form in _forms(text)]))
        together = "".join(text for several in texts.values() for text in several)
        seams = join(*self._shared(list(_forms(together))))
        if seams != join(*found.values()):  # what stands there only once they are read one behind the other
            found = {name: join(label, seams) for name, label in found.items()}
        return found

    def _shared(self, texts: list[str]) -> Iterator[Label]:
        """The labels of the confidential texts that have a part in common with one of some texts."""
        bare = [squeezed(text) for text in texts]
        parts = sorted({part for one in bare for part in _parts(one)})
        finder = AhoCorasick(parts) if parts else None
        needles = [Needle(text) for text in texts if len(squeezed(text)) >= MIN_WHOLE_CHARS]
        for kept in self._kept.values():
            hay = kept.hay
            whole = len(kept.whole) >= MIN_WHOLE_CHARS and any(kept.whole in one for one in bare)
            shared = finder is not None and any(finder.find_matches_as_indexes(one) for one in hay.squeezed)
            if whole or shared or not hay.complete or any(hay.holds(needle) for needle in needles):
                yield kept.label


def _as_confidential(label: Label, found: Label, said: Label | None) -> Label:
    """A label with the confidentiality that was found; where a host has said one, the stricter of both."""
    whole = found if said is None else join(found, said)
    sources = join(Label(sources=label.sources), Label(sources=found.sources)).sources
    rank = CONFIDENTIALITY_RANK[whole.confidentiality]
    return replace(
        label,
        confidentiality=whole.confidentiality,
        categories=whole.categories if rank else (),
        sources=sources,
    )


def _text(leaf: Leaf) -> str:
    value = leaf.value
    return value if isinstance(value, str) else repr(value)


def _forms(text: str) -> tuple[str, ...]:
    """A text, and what it holds in encoded form."""
    decoded, _ = decodings(text)
    return (text, *decoded)


def _parts(bare: str) -> Iterator[str]:
    """The parts of a value by which a secret is known again."""
    for at in range(len(bare) - MIN_PART_CHARS + 1):
        part = bare[at : at + MIN_PART_CHARS]
        if any(one.isdigit() for one in part):
            yield part
    for at in range(len(bare) - MIN_WORDS_CHARS + 1):
        yield bare[at : at + MIN_WORDS_CHARS]
