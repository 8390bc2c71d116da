"""Secrets on their way in and out of a tool: put in where a reference stands, and taken out wherever a value shows.

A value is looked for as it is, as JSON writes it, percent-encoded and in base64; of a value of several lines each
line counts too. A server that changes a secret in another way before it sends it back cannot be caught: give secrets
only to servers that may know them.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import quote, quote_plus

from symbi.errors import InputError, LimitExceeded, SymbiError
from symbi.types import JsonValue

VAULT_SCHEME: Final = "vault://"
MIN_SECRET_CHARS: Final = 4  # a shorter value stands in any text by chance, and cannot be told from it
MAX_SECRETS: Final = 256  # values that one server may be given in its life; all of them are looked for
_MIN_LINE_CHARS: Final = 8  # of a line that counts by itself

ErrorT = TypeVar("ErrorT", bound=SymbiError)


class SecretMask:
    """Replaces secret values by their references; knows every secret that it was ever told.

    Args:
        secrets: Values by vault path.
    """

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._secrets: dict[str, str] = {}
        self._needles: list[tuple[str, str]] = []
        self.add(secrets or {})

    def add(self, secrets: Mapping[str, str]) -> None:
        """Look for these too.

        Raises:
            InputError: A value is too short to be told from other text, or is not text.
            LimitExceeded: More secrets than one server may be given.
        """
        fresh = {value: VAULT_SCHEME + path for path, value in secrets.items() if value not in self._secrets}
        for value, reference in fresh.items():
            if len(value) < MIN_SECRET_CHARS:
                msg = f"the value of `{reference}` has fewer than {MIN_SECRET_CHARS} characters"
                raise InputError(msg, code="secret.short", hint="it could not be kept out of logs; use a longer one")
            if value != value.encode("utf-8", "replace").decode():
                msg = f"the value of `{reference}` is not text"
                raise InputError(msg, code="secret.text", hint="encode it, for example in base64")
        if len(self._secrets) + len(fresh) > MAX_SECRETS:
            msg = f"a server may be given {MAX_SECRETS} secrets"
            raise LimitExceeded(msg, code="secret.many")
        if fresh:
            self._secrets |= fresh
            needles = {shape: ref for value, ref in self._secrets.items() for shape in _shapes(value)}
            self._needles = sorted(needles.items(), key=lambda needle: -len(needle[0]))

    def text(self, text: str) -> str:
        """The text without secret values."""
        for value, reference in self._needles:
            text = text.replace(value, reference)
        return text

    def value(self, value: JsonValue) -> JsonValue:
        """The value with no secret in any text, key or number."""
        if not self._needles:
            return value
        match value:
            case None | bool():
                return value
            case str():
                return self.text(value)
            case int() | float():
                written = json.dumps(value)
                masked = self.text(written)
                return value if masked == written else masked
            case Mapping():
                return {self.text(key): self.value(item) for key, item in value.items()}
            case _:
                return [self.value(item) for item in value]

    def error(self, error: ErrorT) -> ErrorT:
        """A copy of the error without secret values, and without the causes that may quote them."""
        copy = type(error).__new__(type(error))
        copy.__dict__.update(error.__dict__)
        SymbiError.__init__(
            copy,
            self.text(error.message),
            code=error.code,
            hint=None if error.hint is None else self.text(error.hint),
            place=error.place,
            **{name: self.value(field) for name, field in error.fields.items()},
        )
        return copy


def put_in(value: JsonValue, secrets: Mapping[str, str]) -> JsonValue:
    """The value with each text that is a listed `vault://path`, and nothing else, replaced by the secret."""
    match value:
        case str():
            path = value.removeprefix(VAULT_SCHEME)
            return secrets[path] if path != value and path in secrets else value
        case Mapping():
            return {key: put_in(item, secrets) for key, item in value.items()}
        case list() | tuple():
            return [put_in(item, secrets) for item in value]
        case _:
            return value


def references(value: JsonValue) -> Iterator[str]:
    """The vault paths that stand in a value."""
    match value:
        case str() if value.startswith(VAULT_SCHEME):
            yield value.removeprefix(VAULT_SCHEME)
        case Mapping():
            for item in value.values():
                yield from references(item)
        case list() | tuple():
            for item in value:
                yield from references(item)


def _shapes(secret: str) -> Iterator[str]:
    """The ways in which a secret may show."""
    lines = [line for line in secret.splitlines() if len(line.strip()) >= _MIN_LINE_CHARS]
    for text in {secret, *(line.strip() for line in lines)}:
        yield text
        yield json.dumps(text)[1:-1]
        yield json.dumps(text, ensure_ascii=False)[1:-1]
        yield quote(text, safe="")
        yield quote(text)
        yield quote_plus(text)
        data = text.encode()
        yield base64.b64encode(data).decode().rstrip("=")
        yield base64.urlsafe_b64encode(data).decode().rstrip("=")
