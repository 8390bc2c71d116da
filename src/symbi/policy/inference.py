"""Labels for agents whose inside nobody sees: where each value of a call comes from, by what it looks like.

A `FlowSession` is told the user's words, or none, and each call with its output. It answers with the label of each
argument, and which sinks are tainted, by these rules, the first that fits:

1. What the user wrote is the user's, wherever else it stands.
2. What stands in something untrusted, in whatever spelling or encoding, is untrusted.
3. What stands in a system-made or trusted field bears that field's label; so does what is made of such pieces alone.
4. What cannot have been influenced by what was read is clean: truth values; dates that no untrusted text names; and
   quantities, while no untrusted text speaks of numbers.
5. Anything else joins all that was read so far.

It looks at one call at a time and never at what comes later.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Final

from symbi.policy.addresses import addresses, is_address
from symbi.policy.fields import Role, ToolFlow
from symbi.policy.flow import join
from symbi.policy.matching import Hay, Needle, Voucher, is_moment, number_of
from symbi.policy.material import Piece, pieces
from symbi.policy.normal import strict
from symbi.policy.sinks import CallFacts, Leaf, is_confidential, is_sink, leaves
from symbi.types import Integrity, JsonValue, Label

TASK: Final = "task"
"""The source of what the user wrote."""

MAX_REMEMBERED_CHARS: Final = 16_777_216  # untrusted text of one session; after more, only the user's words are clean
LEAST_CHARS: Final = 64  # as which a shorter text counts, for each is held against every later value
MAX_OWN: Final = 10_000  # values of the agent's own that are known again
MAX_OWN_CHARS: Final = 512  # of one of them; a longer one counts as made of everything anyway
MAX_COMPARISONS: Final = (
    250_000  # words of one value, times texts they are held against; with more it is not made of them
)
MIN_ECHO_CHARS: Final = 4  # a shorter argument does not mark what a tool answers as its echo
_URL_HEAD: Final = re.compile(r"^(?:https?://)?(?:www\.)?", re.IGNORECASE)
_NEXT_SENTENCE: Final = re.compile(r"(?<=[a-z0-9])\.(?=[A-Z][a-z])")
_WORD: Final = re.compile(r"[^\s,;]+")


@dataclass(frozen=True, slots=True)
class CallLabels:
    """What was found out about one call: the label of each argument, their join, and the facts for policies."""

    labels: Mapping[str, Label]
    label: Label
    facts: CallFacts


@dataclass(slots=True)
class _Untrusted:
    hay: Hay
    label: Label


@dataclass(slots=True)
class _Clean:
    voucher: Voucher
    label: Label


@dataclass(slots=True)
class FlowSession:
    """One conversation of a foreign agent with its tools.

    Args:
        words: What the user wrote; None, or an empty text, where that is not known.
        most_chars: Text that is remembered; `MAX_REMEMBERED_CHARS` if None.
    """

    words: str | None = None
    most_chars: int | None = None
    _user: tuple[Voucher, ...] = field(init=False)
    _user_addresses: frozenset[str] = field(init=False)
    _clean: dict[tuple[str, bool, bool], _Clean] = field(init=False, default_factory=dict)
    _untrusted: dict[str, _Untrusted] = field(init=False, default_factory=dict)
    _size: int = field(init=False, default=0)
    _clean_size: int = field(init=False, default=0)
    _own: set[str] = field(init=False, default_factory=set)
    _read: Label = field(init=False, default_factory=Label)
    _read_clean: Label = field(init=False, default_factory=Label)

    def __post_init__(self) -> None:
        self.hear(self.words or "")

    @property
    def is_full(self) -> bool:
        """Whether more untrusted text was read than is remembered: from then on anything may stand in it."""
        return self._size > self._most

    @property
    def size(self) -> int:
        """Characters that a value is held against."""
        return min(self._size, self._most) + min(self._clean_size, self._most)

    @property
    def read(self) -> Label:
        """Join of all that was read."""
        return self._read

    @property
    def _most(self) -> int:
        return MAX_REMEMBERED_CHARS if self.most_chars is None else self.most_chars

    def hear(self, words: str) -> None:
        """Take this for all that the user wrote, in place of what was known of it."""
        self.words = words
        # People forget the space behind a full stop: `www.example.com.They said`.
        self._user = tuple(Voucher(one) for one in dict.fromkeys([words, _NEXT_SENTENCE.sub(". ", words)]))
        written = addresses(words)
        self._user_addresses = frozenset(strict(_URL_HEAD.sub("", one).rstrip("/")) for one in written)

    def judge(self, flow: ToolFlow, arguments: Mapping[str, JsonValue]) -> CallLabels:
        """Label the arguments of a call. Nothing is remembered.

        Args:
            flow: What the manifest declares of the tool.
            arguments: The arguments, as JSON.
        """
        labels: dict[str, Label] = {}
        sinks, tainted, confidential, explained = set[str](), set[str](), set[str](), set[str]()
        for name, value in arguments.items():
            own: list[Label] = []
            for leaf in leaves(value, (name,)):
                role = flow.role(leaf.steps)
                label = self._label(leaf)
                chosen = leaf.name and role is Role.SINK and not flow.spells(leaf.steps[-1])
                if chosen or not leaf.name:
                    own.append(label)
                if role is not Role.PLAIN and is_confidential(label):
                    confidential.add(name)
                if chosen or is_sink(role, leaf):
                    sinks.add(name)
                    for value_of_it in self._tainted_values(role, leaf, label, in_full=chosen):
                        tainted.add(name)
                        if self.explains(value_of_it):
                            explained.add(name)
            labels[name] = join(*own)
        seam = self._tainted_seams(flow, arguments)
        facts = CallFacts(
            sinks=frozenset(sinks | seam),
            tainted=frozenset(tainted | seam),
            confidential=frozenset(confidential),
            unexplained=frozenset(tainted - explained - seam),
            words_known=bool(self.words and self.words.strip()),
        )
        return CallLabels(labels, join(*labels.values()), facts)

    def observe(
        self,
        flow: ToolFlow,
        arguments: Mapping[str, JsonValue],
        output: JsonValue,
        source: str,
        *,
        failed: bool = False,
    ) -> None:
        """Remember what a call answered.

        Args:
            flow: What the manifest declares of the tool; what it does not declare is untrusted.
            arguments: What it was called with: an untrusted argument stays untrusted where the tool gives it back.
            output: A text, or JSON.
            source: The name of this call in labels.
            failed: The tool says that it failed: its words are nobody's output, and untrusted.
        """
        echoed = [
            leaf.value
            for name, value in arguments.items()
            for leaf in leaves(value, (name,))
            if isinstance(leaf.value, str) and len(leaf.value) >= MIN_ECHO_CHARS
        ]
        for text in echoed:
            label = self._text_label(text)
            if label.integrity is Integrity.UNTRUSTED:
                self._distrust(text, replace(label, sources=(source,)))
        for piece in pieces(ToolFlow() if failed else flow, output, source):
            if piece.text.strip() == "":
                continue
            if piece.label.integrity is Integrity.UNTRUSTED:
                self._distrust(piece.text, piece.label)
            else:
                self._vouch(piece)

    def _vouch(self, piece: Piece) -> None:
        key = (piece.text, piece.whole, piece.lines)
        known = self._clean.get(key)
        self._read_clean = join(self._read_clean, piece.label)
        self._read = join(self._read, piece.label)
        if known is None:
            self._clean_size += max(len(piece.text), LEAST_CHARS)
            if self._clean_size > self._most:
                return  # what is not remembered vouches for nothing
            known = self._clean[key] = _Clean(Voucher(*key), piece.label)
        known.label = join(known.label, piece.label)

    def _distrust(self, text: str, label: Label) -> None:
        self._read = join(self._read, label)
        known = self._untrusted.get(text)
        if known is None:
            self._size += max(len(text), LEAST_CHARS)
            if self.is_full:
                return
            known = self._untrusted[text] = _Untrusted(Hay(text), label)
        known.label = join(known.label, label)

    # --- one value ----------------------------------------------------------------------------

    def _label(self, leaf: Leaf) -> Label:
        value = leaf.value
        if isinstance(value, bool):
            return Label()
        if isinstance(value, int | float):
            return self._number_label(value)
        if isinstance(value, str):
            return self._text_label(value)
        return self._read  # too deep, or too large, to be looked at

    def _tainted_values(self, role: Role, leaf: Leaf, label: Label, *, in_full: bool) -> list[JsonValue]:
        """What of a sink is untrusted: the value, or the addresses in a text that does not count in full."""
        if isinstance(leaf.value, str) and not in_full and (role is Role.TEXT or leaf.name):
            if self._is_users(leaf.value):
                return []
            found = addresses(leaf.value)
            return [one for one in found if self._text_label(one).integrity is Integrity.UNTRUSTED]
        return [leaf.value] if label.integrity is Integrity.UNTRUSTED else []

    def claim(self, value: JsonValue) -> None:
        """Take a value for the agent's own, for it shared nothing with anything that was read when it was first used.

        That a tool repeats it in an answer does not explain it from then on.
        """
        if len(self._own) < MAX_OWN and len(str(value)) <= MAX_OWN_CHARS:
            self._own.add(strict(str(value)))

    def explains(self, value: JsonValue) -> bool:
        """Whether a value has a part in common with something untrusted, and is not the agent's own."""
        if self.is_full:
            return True
        if len(str(value)) <= MAX_OWN_CHARS and strict(str(value)) in self._own:
            return False
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = number_of(repr(value))
            return any(number in one.hay.numbers for one in self._untrusted.values())
        if not isinstance(value, str):
            return True
        needle, bare = Needle(value), Needle(_URL_HEAD.sub("", value.strip()))
        return any(one.hay.holds(needle) or one.hay.shares(bare) for one in self._untrusted.values())

    def _number_label(self, value: float) -> Label:
        number = number_of(repr(value))
        if number is None:
            return self._read
        if any(number in one.numbers for one in self._user):
            return Label(sources=(TASK,))
        if self.is_full:
            return self._read
        dictated = [one.label for one in self._untrusted.values() if number in one.hay.numbers]
        vouched = [one.label for one in self._clean.values() if number in one.voucher.numbers]
        if dictated or vouched:
            return join(*dictated, *vouched)
        if any(one.hay.counts for one in self._untrusted.values()):
            return self._read
        return self._read_clean

    def _text_label(self, text: str) -> Label:
        if not text.strip():
            return Label()
        if self._is_users(text):
            return Label(sources=(TASK,))
        if self.is_full:
            return self._read  # what is not remembered could have been anything
        needle = Needle(text)
        dictated = [one.label for one in self._untrusted.values() if one.hay.holds(needle)]
        vouched = [one.label for one in self._clean.values() if one.voucher.vouches(text)]
        if dictated or vouched:
            return join(*dictated, *vouched)
        if is_moment(text):
            return join(self._read_clean, *(one.label for one in self._untrusted.values() if one.hay.holds_day(text)))
        made = self._made_of(text)
        if made is not None:
            return made
        return self._read

    def _is_users(self, text: str) -> bool:
        """Whether the user wrote it; a URL also with another scheme, or without one."""
        if any(one.vouches(text) for one in self._user):
            return True
        bare = _URL_HEAD.sub("", text.strip()).rstrip("/")
        if bare == text or not is_address(text) or "." not in bare:
            return False
        return strict(bare) in self._user_addresses

    def _made_of(self, text: str) -> Label | None:
        """The label of a text of several words, each of which is vouched for; addresses have to be whole."""
        words = _WORD.findall(text)
        if len(words) < 2 or is_address(text):  # noqa: PLR2004 - one word is no composition
            return None
        if len(words) * (len(self._clean) + len(self._untrusted)) > MAX_COMPARISONS:
            return None
        labels: list[Label] = []
        for word in words:
            bare = word.strip(".:!?()'\"")
            if not bare:
                continue
            if self._is_users(bare):
                labels.append(Label(sources=(TASK,)))
                continue
            needle = Needle(bare)
            if any(one.hay.holds(needle) for one in self._untrusted.values()):
                return None
            found = [one.label for one in self._clean.values() if one.voucher.vouches(bare)]
            if not found:
                return None
            labels.extend(found)
        return join(*labels) if labels else None

    def _tainted_seams(self, flow: ToolFlow, arguments: Mapping[str, JsonValue]) -> frozenset[str]:
        """Texts that hold an address only once they are read one behind the other."""
        texts = [(name, value) for name, value in arguments.items() if isinstance(value, str) and value]
        texts = [(name, value) for name, value in texts if flow.role((name,)) is Role.TEXT]
        found: set[str] = set()
        for (name, left), (other, right) in pairwise(texts):
            alone = {*addresses(left), *addresses(right)}
            if any(right.startswith(one) for one in alone) or left[-1].isspace() or right[0].isspace():
                continue
            joined = [one for one in addresses(left[-300:] + right[:300]) if one not in alone]
            crossing = [one for one in joined if one not in left and one not in right]
            if any(self._text_label(one).integrity is Integrity.UNTRUSTED for one in crossing):
                found |= {name, other}
        return frozenset(found)


def describe(labels: Mapping[str, Label]) -> Mapping[str, JsonValue]:
    """Labels as a replay shows them."""
    return {
        name: {
            "integrity": label.integrity.value,
            "confidentiality": label.confidentiality.value,
            "sources": list(label.sources),
            **({"subjects": list(label.subjects)} if label.subjects else {}),
        }
        for name, label in labels.items()
    }
