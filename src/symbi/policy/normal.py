"""Forms of a text that make two spellings of one thing equal.

Two of them, for two questions. Whether a value *is* what somebody trusted wrote is asked strictly: `strict` forgives
case and white space, nothing else, for a host with one Cyrillic letter in it is another host. Whether it *may come
from* an untrusted text is asked loosely: `loose` and `squeezed` also see through look-alike letters, invisible
characters, punctuation put in between, and `decodings` through the usual encodings.
"""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

MAX_DECODED_CHARS: Final = 262_144  # bounds what the encoded parts of one text may unfold to
_DECODING_DEPTH: Final = 2  # base64 within percent-encoding, and the like
_SPACE: Final = re.compile(r"\s+")
_NOT_WORD: Final = re.compile(r"[\W_]+")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2}[\s:,]?){4,}")
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))")  # of JSON, within JSON, of programs
_SPELLED_POINT: Final = re.compile(
    r"(?<!\s)\s*[\[({]\s*(?:(?P<dot>dot|punkt|point)|(?P<at>at))\s*[\])}]\s*", re.IGNORECASE
)

# Letters of other scripts that look like Latin ones. Far from all there are: what is not in here makes a value that is
# found nowhere, and so one that joins all that was read.
_LOOKALIKES: Final = {
    code: latin
    for latin, codes in {
        "a": (0x0430, 0x03B1),
        "b": (0x0432,),
        "c": (0x0441,),
        "d": (0x0501,),
        "e": (0x0435,),
        "g": (0x0261, 0x0581),
        "h": (0x043D, 0x04BB, 0x0570),
        "i": (0x0456, 0x0131, 0x03B9),
        "j": (0x0458,),
        "k": (0x043A, 0x03BA),
        "l": (0x04CF,),
        "m": (0x043C,),
        "n": (0x03B7, 0x0578),
        "o": (0x043E, 0x03BF, 0x0585),
        "p": (0x0440, 0x03C1),
        "q": (0x051B,),
        "r": (0x0433,),
        "s": (0x0455,),
        "t": (0x0442, 0x03C4),
        "u": (0x03C5, 0x057D),
        "v": (0x03BD,),
        "w": (0x051D, 0x03C9),
        "x": (0x0445,),
        "y": (0x0443, 0x03B3),
        ".": (0x2024, 0x2027, 0x3002, 0xFF61),
        "/": (0x2215, 0x2044),
        "-": (0x2010, 0x2011, 0x2012, 0x2013, 0x2014, 0x2212),
    }.items()
    for code in codes
}


def strict(text: str) -> str:
    """The text without regard to case and white space."""
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip().casefold()


def loose(text: str) -> str:
    """Likewise, and without regard to compatibility forms, invisible characters and look-alikes."""
    if not text.isascii():
        plain = unicodedata.normalize("NFKD", text)
        text = "".join(one for one in plain if unicodedata.category(one) not in {"Cf", "Mn", "Me", "Cn", "Co"})
        text = text.casefold().translate(_LOOKALIKES)
    return _SPACE.sub(" ", text).strip().casefold()


def squeezed(text: str) -> str:
    """The letters and digits of the loose form."""
    return _NOT_WORD.sub("", loose(text))


def decodings(text: str, depth: int = _DECODING_DEPTH) -> tuple[list[str], bool]:
    """What the text may hold in encoded form: entities, percent-encoding, escapes of JSON, base64, hexadecimal digits.

    Returns:
        The decoded texts, and whether that is all: something was left out where they got too long.
    """
    if depth == 0:
        return [], True
    wholes = (html.unescape(text), unquote(text), _SPELLED_POINT.sub(_point, text), _unescaped(text))
    found = [whole for whole in wholes if whole != text]
    for pattern, decode in ((_BASE64, _from_base64), (_HEX, _from_hex)):
        parts = [part for match in pattern.finditer(text) if (part := decode(match.group()))]
        found.extend(parts)
        if len(parts) > 1:
            found.append("".join(parts))
    left, decoded, complete = MAX_DECODED_CHARS, list[str](), True
    for one in found:
        if len(one) > left:
            complete = False
            continue
        left -= len(one)
        within, whole = decodings(one, depth - 1)
        decoded += [one, *within]
        complete = complete and whole
    return decoded, complete


def turned(text: str) -> Iterator[str]:
    """The text with its letters moved by thirteen, and backwards; digits that stand alone are the same in both."""
    yield codecs.encode(text, "rot13")
    yield text[::-1]


def _point(match: re.Match[str]) -> str:
    return "." if match["dot"] else "@"


def _unescaped(text: str) -> str:
    r"""The text with `\u0041` and `\x41` as the letters that they stand for."""
    if "\\" not in text:
        return text
    plain = _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)), text)
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # two escapes may be one letter


def _from_base64(text: str) -> str | None:
    bare = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    for size in (len(bare), len(bare) - len(bare) % 4):  # a stray letter behind it must not hide the rest
        try:
            return _shown(base64.b64decode(bare[:size] + "=" * (-size % 4), validate=True))
        except (binascii.Error, ValueError):
            continue
    return None


def _from_hex(text: str) -> str | None:
    try:
        return _shown(bytes.fromhex(re.sub(r"[\s:,]", "", text)))
    except ValueError:
        return None


def _shown(data: bytes) -> str | None:
    """The bytes as text, if they are any."""
    text = data.decode("utf-8", "replace")
    good = sum(one.isprintable() or one.isspace() for one in text) - text.count("\ufffd")
    return text if text and good >= len(text) * 0.8 else None
