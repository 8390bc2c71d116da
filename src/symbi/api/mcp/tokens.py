"""The clients of the gateway that come in by HTTP: a name and the digest of a token each, in a file of the data folder.

A token is 256 random bits, so its SHA-256 says nothing of it, and no slow hash is needed. It is printed once and stored
nowhere. The file is looked at before each request, so what is revoked comes in no more.
"""

import fcntl
import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Final

import msgspec

from symbi.clock import random_bytes, rfc3339
from symbi.errors import InputError, StoreUnavailable

FILE_NAME: Final = "mcp-clients.json"
PREFIX: Final = "symbi_"  # of a token, so that who finds one knows what it is
MAX_TOKEN_CHARS: Final = 256  # of what is presented as one
MAX_CLIENTS: Final = 1_000
MAX_FILE_BYTES: Final = 1_048_576

_DIGEST: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,47}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who may come in.

    Attributes:
        name: Who it is to policies and in the trail.
        digest: SHA-256 of its token, in hexadecimal.
        created_at: When, as RFC 3339.
    """

    name: str
    digest: str
    created_at: str


class ClientBook:
    """Who may come in.

    Args:
        folder: The data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME
        self._seen: tuple[int, ...] | None = None
        self._clients: tuple[Client, ...] = ()

    def all(self) -> tuple[Client, ...]:
        """Those who may come in now, by name.

        Raises:
            StoreUnavailable: The file cannot be read, is not what was written, or could be written by others.
        """
        try:
            status = self._file.stat()
        except FileNotFoundError:
            self._seen, self._clients = None, ()
            return ()
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size, status.st_mode, status.st_uid)
        if seen != self._seen:
            self._clients, self._seen = self._read(), seen
        return self._clients

    def who(self, token: str) -> str | None:
        """The name of the client whose token it is; None where it is nobody's.

        Raises:
            StoreUnavailable: As `all`.
        """
        found = self.holder(token)
        return None if found is None else found.name

    def holder(self, token: str) -> Client | None:
        """Whose token it is; None where it is nobody's. Takes as long for each.

        Raises:
            StoreUnavailable: As `all`.
        """
        clients = self.all()
        if len(token) > MAX_TOKEN_CHARS:
            return None
        digest, found = _digest(token), None
        for client in clients:
            if compare_digest(client.digest, digest):
                found = client
        return found

    def add(self, name: str, now_ns: int) -> str:
        """Let somebody in by a token that is made here.

        Args:
            name: Of letters, digits, `-` and `_`.
            now_ns: The time.

        Returns:
            The token, which is kept nowhere.

        Raises:
            InputError, StoreUnavailable: As `put`.
        """
        token, digest = new_token()
        self.put(name, digest, now_ns)
        return token

    def put(self, name: str, digest: str, now_ns: int) -> None:
        """Let somebody in by a token that was made elsewhere.

        Args:
            name: Of letters, digits, `-` and `_`.
            digest: SHA-256 of the token, in hexadecimal.
            now_ns: The time.

        Raises:
            InputError: The name is taken or none, or the digest is none.
            StoreUnavailable: The file cannot be read or written.
        """
        if not _DIGEST.fullmatch(digest):
            raise InputError("the digest of a token has 64 hexadecimal digits", code="input.client")
        if not _NAME.fullmatch(name):
            msg = f"`{name}` is no name for a client"
            hint = "a letter, then at most 47 letters, digits, `-` and `_`"
            raise InputError(msg, code="input.client", hint=hint)
        with self._locked():
            clients = self.all()
            if any(client.name == name for client in clients):
                msg = f"there is a client `{name}` already"
                raise InputError(msg, code="input.client", hint=f"`symbi mcp clients revoke {name}` ends its token")
            if len(clients) >= MAX_CLIENTS:
                msg = f"there are {MAX_CLIENTS} clients already"
                raise InputError(msg, code="input.client", hint="revoke those that nobody uses")
            self._write((*clients, Client(name, digest, rfc3339(now_ns))))

    def revoke(self, name: str) -> None:
        """Let somebody in no more.

        Raises:
            InputError: There is no such client.
            StoreUnavailable: The file cannot be read or written.
        """
        with self._locked():
            clients = self.all()
            left = tuple(client for client in clients if client.name != name)
            if left == clients:
                msg = f"there is no client `{name}`"
                raise InputError(msg, code="input.client", hint="`symbi mcp clients list` shows them")
            self._write(left)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time."""
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(
                self._file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _read(self) -> tuple[Client, ...]:
        try:
            with os.fdopen(os.open(self._file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
                status = os.fstat(file.fileno())
                if status.st_uid not in {os.geteuid(), 0} or status.st_mode & 0o022:
                    raise self._unreadable("others can write it")
                data = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        if len(data) > MAX_FILE_BYTES:
            raise self._unreadable("it is too large")
        try:
            return msgspec.json.decode(data, type=tuple[Client, ...])
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._unreadable("it is not what was written") from error

    def _write(self, clients: tuple[Client, ...]) -> None:
        new = self._file.with_suffix(".new")
        data = msgspec.json.format(msgspec.json.encode(sorted(clients, key=lambda client: client.name)), indent=2)
        try:
            new.unlink(missing_ok=True)
            number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(number, "wb") as file:
                file.write(data + b"\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._file)
            folder = os.open(self._file.parent, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unreadable(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"cannot use `{self._file}`: {why}", code="unavailable.clients")

    def _unwritable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"cannot write `{self._file}`: {error.strerror or error}", code="unavailable.clients")


def new_token() -> tuple[str, str]:
    """A token, and its digest."""
    token = PREFIX + urlsafe_b64encode(random_bytes(32)).decode().rstrip("=")
    return token, _digest(token)


def _digest(token: str) -> str:
    return sha256(token.encode(errors="surrogatepass")).hexdigest()
