"""Secrets that are put into requests on their way out, and looked for in what comes back.

An answer in which one shows is refused as a whole: as it is, as JSON writes it, percent-encoded, in base64 wherever it
begins in it, in hexadecimal digits, or in other letters' case. A host that changes it in another way and sends it back
cannot be caught: give a host only what it may know.
"""

import base64
import re
from typing import Final
from urllib.parse import unquote

from symbi.errors import InputError, Unavailable
from symbi.sandbox.egress import Credential
from symbi.tools.mask import SecretMask

MIN_ALIGNED: Final = 8  # of a secret that is looked for in the middle of base64 too
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,8190}[\x21-\x7e])?")


class Secret:
    """One value for one host; it never shows in a text of ours.

    Args:
        credential: Where it goes.
        value: From the source of secrets; None where it has none.

    Raises:
        Unavailable: There is none.
        InputError: It cannot stand in a header, or is too short to be told from other text.
    """

    __slots__ = ("_mask", "_needles", "_value", "credential")

    def __init__(self, credential: Credential, value: str | None) -> None:
        reference = f"vault://{credential.path}"
        if value is None:
            msg = f"there is no secret `{reference}`"
            raise Unavailable(msg, code="unavailable.secrets", hint="put it into a source of `secrets.sources`")
        if not _HEADER_VALUE.fullmatch(value):
            msg = f"the value of `{reference}` cannot stand in a header"
            raise InputError(msg, code="egress.credential", hint="one line of visible ASCII characters can")
        self.credential = credential
        self._mask = SecretMask({credential.path: value})
        self._value = value
        self._needles = tuple(_more_shapes(value))

    def __repr__(self) -> str:
        """Whose it is, alone."""
        return f"Secret(vault://{self.credential.path})"

    @property
    def header(self) -> tuple[bytes, bytes]:
        """What is put in."""
        one = self.credential
        return one.header.encode("ascii"), f"{one.prefix}{self._value}".encode("ascii")

    def shows_in(self, data: bytes) -> bool:
        """Whether it shows in what comes back."""
        text = data.decode("latin-1")
        for one in {text, unquote(text, "latin-1")}:
            lower = one.lower()
            if self._mask.text(one) != one or any(needle in lower for needle in self._needles):
                return True
        return False


def _more_shapes(value: str) -> list[str]:
    """In lower case, as what is looked through is made: the case of base64 is given up for it, which finds more."""
    data = value.encode("ascii")
    shapes = [value.lower(), data.hex()]
    if len(data) >= MIN_ALIGNED:
        for ahead in (1, 2):  # it begins in the middle of a group of three bytes, as in `user:password`
            inner = base64.b64encode(bytes(ahead) + data).decode("ascii")
            shapes.append(inner[4 : -4 or None].lower())
    return shapes
