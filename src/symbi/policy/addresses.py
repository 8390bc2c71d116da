"""Addresses inside of text: what a reader, or a program, can follow, pay into, call or write to.

Found are e-mail addresses, URLs, hosts without a scheme, IP addresses, account numbers (IBAN-like, long runs of
digits, wallets) and telephone numbers; dates and names of common files are not. All patterns are linear in the text.
"""

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

MAX_ADDRESSES: Final = 4096  # of one text; one that holds more is an address as a whole

_EMAIL: Final = re.compile(r"(?<![\w.+%'-])[\w.%+'-]+@\w[\w-]{0,62}(?:\.[\w-]{1,63}){0,126}")
_URL: Final = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,15}:(?://)?[^\s<>\"'`|\\^{}]{3,}|(?<![:\w])//[^\s/<>\"'`]{3,}")
_WWW: Final = re.compile(r"\bwww\d?\.[^\s<>\"'`|\\^{}]{2,}", re.IGNORECASE)
_HOST: Final = re.compile(
    r"(?<![^\W_])(?<![^\W_][.-])(?<![@%])(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,126}(?P<top>[^\W\d_]{2,24}|xn--[\w-]{2,59})\.?"
    r"(?P<rest>:\d{1,5})?(?P<path>[/?#][^\s<>\"'`|\\^{}]*)?(?![_-]{0,8}[^\W_]|@)"
)
_IP: Final = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\w)")
_IBAN: Final = re.compile(
    r"(?<!\w)[A-Za-z]{2}\d{2}(?:[A-Za-z0-9]{8,30}|(?:[ -][A-Za-z0-9]{4}){2,7}(?:[ -][A-Za-z0-9]{1,4})?)(?!\w)"
)
_LONG: Final = re.compile(r"(?<!\w)(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{20,128}(?!\w)")
_DIGITS: Final = re.compile(r"(?<![\w.,])(?:\+|00)?\(?\d(?:[ ()./-]{0,2}\d){6,40}(?![\w]|[.,]\d)")
_DATE: Final = re.compile(
    r"(?<!\d)(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})(?:[T ]+\d{1,2}:\d{2}(?::\d{2})?)?(?!\d)"
)
_TRAILING: Final = ".,;:!?)]}'\"*"
_MIN_ACCOUNT_DIGITS: Final = 8
_MIN_PHONE_DIGITS: Final = 7

_FILE_ENDINGS: Final = frozenset(
    [
        "txt",
        "pdf",
        "doc",
        "docx",
        "xls",
        "xlsx",
        "ppt",
        "pptx",
        "odt",
        "ods",
        "csv",
        "tsv",
        "json",
        "jsonl",
        "xml",
        "yaml",
        "yml",
        "toml",
        "ini",
        "cfg",
        "conf",
        "log",
        "md",
        "rst",
        "html",
        "htm",
        "css",
        "js",
        "ts",
        "jsx",
        "tsx",
        "java",
        "c",
        "h",
        "cpp",
        "hpp",
        "go",
        "rb",
        "php",
        "sql",
        "db",
        "sqlite",
        "png",
        "jpg",
        "jpeg",
        "gif",
        "svg",
        "bmp",
        "webp",
        "tif",
        "tiff",
        "mp3",
        "mp4",
        "wav",
        "avi",
        "mkv",
        "tar",
        "gz",
        "tgz",
        "bz2",
        "xz",
        "rar",
        "7z",
        "exe",
        "dll",
        "bin",
        "iso",
        "img",
        "bak",
        "tmp",
        "eml",
        "ics",
        "vcf",
        "pem",
        "key",
        "crt",
        "tex",
        "epub",
        "ipynb",
        "lock",
    ]
)


def addresses(text: str) -> list[str]:
    """The addresses in a text, in order of their kinds; of a text with too many, the whole text."""
    found: list[str] = []
    for form in _forms(text):
        for one in _scan(form):
            found.append(one)
            if len(found) > MAX_ADDRESSES:
                return [text]
    return list(dict.fromkeys(found))


def is_address(text: str) -> bool:
    """Whether a text is one address and nothing else."""
    bare = text.strip()
    return any(one == bare for one in _scan(bare))


def _forms(text: str) -> Iterator[str]:
    """The text as it is, and as a reader, a browser or a mail program would take it."""
    yield text
    seen = {text}
    plain = text if text.isascii() else _visible(text)
    for form in (plain, unquote(plain), html.unescape(plain)):
        if form not in seen:
            seen.add(form)
            yield form


def _visible(text: str) -> str:
    normal = unicodedata.normalize("NFKC", text)
    return "".join(one for one in normal if unicodedata.category(one) != "Cf")


def _scan(text: str) -> Iterator[str]:
    for match in _EMAIL.finditer(text):
        yield match.group().rstrip(_TRAILING)
    for pattern in (_URL, _WWW):
        for match in pattern.finditer(text):
            one = match.group().rstrip(_TRAILING)
            scheme = one.partition(":")[0].casefold()
            if pattern is _WWW or "//" in one or (scheme in {"mailto", "tel", "sms", "data", "javascript", "bitcoin"}):
                yield one
    for match in _HOST.finditer(text):
        if _is_host(match):
            yield match.group().rstrip(_TRAILING)
    for pattern in (_IP, _IBAN, _LONG):
        for match in pattern.finditer(text):
            yield match.group()
    without_dates = _DATE.sub(" ; ", text)
    for match in _DIGITS.finditer(without_dates):
        number = match.group()
        digits = sum(one.isdigit() for one in number)
        if digits >= (_MIN_PHONE_DIGITS if number[0] in "+(0" else _MIN_ACCOUNT_DIGITS):
            yield number


def _is_host(match: re.Match[str]) -> bool:
    """Not `office.Yesterday`, where a space is missing, and not `report.pdf`."""
    if match["path"] or match["rest"]:
        return True
    top = match["top"]
    if top.casefold() in _FILE_ENDINGS:
        return False
    sentence = top[0].isupper() and not top.isupper() and not match.group()[0].isupper()
    return not sentence
