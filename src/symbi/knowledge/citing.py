"""Whether a text cites what it was made of, and nothing else. Pure; what is judged was written by a model, which nobody trusts.

Addresses are compared whole: the beginning of one may be the address of somebody else. What is taken for one is what a
reader's program may make a link of.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from symbi.errors import ModelFailed

QUOTED_CHARS: Final = 12  # from which on quotation marks say that something is quoted; what is shorter may be a name
_DIGITS: Final = 6  # of a number that may be a passage's
_NUMBERS: Final = re.compile(r"\[\s*\^?(\d+(?:\s*[-\N{EN DASH}\N{EM DASH},;]\s*\d+)*)\s*\]")
_BREAK: Final = r"(?:\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])"
_PARAGRAPHS: Final = re.compile(rf"{_BREAK}\s*{_BREAK}|\u2029|</?(?:p|br|div|li)\b[^>]{{0,200}}>", re.IGNORECASE)
_LINES: Final = re.compile(_BREAK)
_QUOTED: Final = (
    re.compile(r"\"([^\"]*)\""),
    re.compile(r"[“„]([^“”]*)[“”]"),
    re.compile(r"«([^«»]*)»"),
    re.compile(r"»([^«»]*)«"),
    re.compile(r"\u2018([^\u2018]*?)\u2019(?!\w)"),
)
_BLOCK: Final = re.compile(r"\s*>[\s>]*(.*)")
_TAG: Final = re.compile(r"<[a-z/!?][^>]*>", re.IGNORECASE)
# Every repetition before the part that decides has a bound: the time is that of the text's length.
_ADDRESS: Final = re.compile(
    r"""(?:
        [a-z][a-z0-9+.-]{0,30}:[/\\]                         # https://, and what is taken for it
      | (?:https?|javascript|vbscript|data|mailto|tel|file|blob):
      | [/\\]{2}[\w-]{1,63}[.:]                              # with the reader's own scheme
      | www\.
      | (?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}[/?\#]           # without any
      | [\w.+-]{1,64}@[\w-]{1,63}\.
      | (?<=\]\()\s*<?
    )[^\s<>"]+""",
    re.IGNORECASE | re.VERBOSE,
)
_AROUND: Final = " \t\r\n<>()[]{}\"'`*_~|.,;:!?“”„\u2018\u2019«»"


def require_cited(text: str, passages: Sequence[str]) -> None:
    """Refuse a text that says what cannot be told to come from passages, by numbers from 1.

    Raises:
        ModelFailed: A paragraph cites none or one that there is not, or what it quotes, an address or a tag is not in a passage
            that it cites; the error says where, and quotes nothing.
    """
    plain = [_plain(one) for one in passages]
    known = [_known(one) for one in plain]
    for number, paragraph in enumerate((part for part in _PARAGRAPHS.split(text) if part.strip()), 1):
        where = f"paragraph {number} of the model's answer"
        cited = [one - 1 for one in sorted(_cited(paragraph, len(passages)))]
        if not cited:
            raise ModelFailed(f"{where} cites nothing", code="knowledge.uncited")
        if not all(any(said in plain[one] for one in cited for said in quoted) for quoted in _quotes(paragraph)):
            raise ModelFailed(f"{where} quotes what no passage that it cites says", code="knowledge.misquoted")
        if not all(any(address in known[one] for one in cited) for address in _addresses(paragraph)):
            raise ModelFailed(f"{where} gives an address that no passage that it cites has", code="knowledge.misquoted")
    if not all(any(_plain(tag) in one for one in plain) for tag in _TAG.findall(text)):
        raise ModelFailed("the model's answer has a tag that no passage has", code="knowledge.misquoted")


def _cited(paragraph: str, count: int) -> set[int]:
    cited: set[int] = set()
    for group in _NUMBERS.findall(paragraph):
        for part in re.split(r"[,;]", group):
            ends = [one.strip() for one in re.split("[-\N{EN DASH}\N{EM DASH}]", part)]
            numbers = [int(one) if len(one) <= _DIGITS else count + 1 for one in ends]
            foreign = next((one for one in numbers if not 1 <= one <= count), None)
            if foreign is not None:
                msg = f"the model's answer cites a passage that there is not: it was shown {count}"
                raise ModelFailed(msg, code="knowledge.uncited")
            cited.update(range(min(numbers), max(numbers) + 1))
    return cited


def _quotes(paragraph: str) -> Iterator[tuple[str, str]]:
    """What is in quotation marks, or set off as a quotation; as it stands, and without the numbers that follow it there."""
    quoted = [one for kind in _QUOTED for one in kind.findall(paragraph) if len(one) >= QUOTED_CHARS]
    quoted.append(" ".join(found[1] for line in _LINES.split(paragraph) if (found := _BLOCK.fullmatch(line))))
    for one in quoted:
        yield _plain(one), _plain(_NUMBERS.sub(" ", one)).strip(_AROUND)


def _known(passage: str) -> frozenset[str]:
    return frozenset((*_addresses(passage), *(word.strip(_AROUND) for word in passage.split())))


def _addresses(text: str) -> Iterator[str]:
    for found in _ADDRESS.finditer(_NUMBERS.sub(" ", text)):
        yield _plain(found[0]).strip(_AROUND).rstrip("/")


def _plain(text: str) -> str:
    return " ".join(text.split()).lower()
