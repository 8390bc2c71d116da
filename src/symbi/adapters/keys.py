"""Where keys are kept: files, environment variables, or the keyring of the operating system.

Each satisfies `symbi.crypto.keys.KeyStore`. None of them ever replaces a key: a new generation stands beside the old ones.
"""

import base64
import binascii
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from symbi.clock import random_bytes
from symbi.crypto.keys import SECRET_BYTES, KeyPurpose, generation_name, require_secret_length
from symbi.errors import ConfigError, StoreUnavailable

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

VARIABLE_PREFIX: Final = "SYMBI_KEY_"
KEYRING_SERVICE: Final = "symbi"

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in its place must not hang us
_WRITE_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_UNFIT_BACKENDS: Final = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt")
"""Modules of backends that keep nothing, or keep it where others can read it."""


class FileKeyStore:
    """One file of 32 bytes for each key, mode 0600, in a folder of mode 0700, all of them ours.

    A key appears whole or not at all: it is written beside its place, flushed, and linked there, which fails if
    something is there already.

    Args:
        folder: Made when the first key is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, purpose: KeyPurpose, generation: int = 1) -> bytes | None:
        """The key, or None where there is no file.

        Raises:
            ConfigError: The folder or the file is a link, is not ours, is open to others, or has another length.
            StoreUnavailable: It cannot be read.
        """
        path = self._path(purpose, generation)
        with self._mapped("read"):
            if not self._check_folder():
                return None
            try:
                descriptor = os.open(path, _READ_FLAGS)
            except FileNotFoundError:
                return None
            except OSError:
                if path.is_symlink():
                    raise _unsafe(path, "is a symbolic link", "put the file itself there") from None
                raise
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise _unsafe(path, "is not a file", "remove it")
                _refuse_others(path, status, 0o600)
                secret = os.read(descriptor, SECRET_BYTES + 1)
            finally:
                os.close(descriptor)
        if len(secret) != SECRET_BYTES:
            raise _malformed(f"`{path}`", f"has {status.st_size} bytes", "put the key back from a backup")
        return secret

    def store(self, purpose: KeyPurpose, secret: bytes, generation: int = 1) -> None:
        """Keep a key; it is on the disk when this returns.

        Raises:
            ConfigError: There is one already, or the folder is not ours alone.
            InputError: It is not 32 bytes long.
            StoreUnavailable: It cannot be written.
        """
        require_secret_length(secret)
        path = self._path(purpose, generation)
        beside = self._folder / f".{purpose}.{random_bytes(8).hex()}"
        with self._mapped("write"):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_folder()
            try:
                _write(beside, secret)
                try:
                    os.link(beside, path)
                except FileExistsError:
                    raise _exists(purpose, self.describe()) from None
            finally:
                with suppress(FileNotFoundError):
                    beside.unlink()
            _flush_folder(self._folder)

    def describe(self) -> str:
        """The folder."""
        return f"files in `{self._folder}`"

    def _path(self, purpose: KeyPurpose, generation: int) -> Path:
        return self._folder / f"{generation_name(purpose.value, generation, '.')}.key"

    def _check_folder(self) -> bool:
        """Whether the folder is there; raises if it is there and not ours alone."""
        try:
            status = self._folder.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(status.st_mode):
            raise _unsafe(self._folder, "is not a folder", "name another, or remove it")
        _refuse_others(self._folder, status, 0o700)
        return True

    @contextmanager
    def _mapped(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            msg = f"cannot {what} keys in `{self._folder}`: {error.strerror or error}"
            hint = "check its permissions and the disk"
            raise StoreUnavailable(msg, code="unavailable.keys", hint=hint) from error


class EnvironmentKeyStore:
    """Keys in environment variables: 32 bytes in base64. It takes none.

    `SYMBI_KEY_AUDIT_SIGNING` is the first signing key, `SYMBI_KEY_AUDIT_SIGNING_2` the next, to be put there before the
    trail is handed over to it; the earlier ones stay, for what they signed is verified with them.

    Args:
        environment: The variables; read at each `load`.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def load(self, purpose: KeyPurpose, generation: int = 1) -> bytes | None:
        """The key, or None where the variable is not set.

        Raises:
            ConfigError: The variable is set to something else than 32 bytes in base64.
        """
        name = _variable(purpose, generation)
        text = self._environment.get(name)
        return None if text is None else _decode(text, f"`{name}`")

    def store(self, purpose: KeyPurpose, secret: bytes, generation: int = 1) -> None:
        """Refuse: a process cannot set variables for its next start.

        Raises:
            ConfigError: Always, but for a secret of another length.
            InputError: It is not 32 bytes long.
        """
        require_secret_length(secret)
        name = _variable(purpose, generation)
        if name in self._environment:
            raise _exists(purpose, self.describe())
        msg = f"there is no key for `{purpose}` in {self.describe()}, and none can be put there"
        raise ConfigError(msg, code="config.key_absent", hint=f"set `{name}` to 32 random bytes in base64")

    def describe(self) -> str:
        """The variables' prefix."""
        return f"environment variables `{VARIABLE_PREFIX}…`"


class KeyringKeyStore:
    """Keys in the keyring of the operating system, in base64; it may ask a person to unlock it.

    Args:
        service: Under which name they stand there.

    Raises:
        ConfigError: The machine has no keyring, or only one that keeps nothing or keeps it in plain text.
    """

    def __init__(self, service: str = KEYRING_SERVICE) -> None:
        from keyring import get_keyring  # noqa: PLC0415 - takes a tenth of a second, and files are the default

        with _mapped_keyring("find"):
            self._keyring = get_keyring()
            backends = _backends(self._keyring)
            unfit = not backends or any(_is_unfit(backend) for backend in backends)
        if unfit:
            msg = f"the keyring `{_name(self._keyring)}` does not keep secrets safe"
            raise ConfigError(msg, code="config.keyring", hint="keep the keys in files, or set up a keyring")
        self._service = service

    def load(self, purpose: KeyPurpose, generation: int = 1) -> bytes | None:
        """The key, or None where the keyring has none.

        Raises:
            ConfigError: The entry is something else than 32 bytes in base64.
            StoreUnavailable: The keyring is locked or gone.
        """
        entry = generation_name(purpose.value, generation, ".")
        with _mapped_keyring("read"):
            text = self._keyring.get_password(self._service, entry)
        return None if text is None else _decode(text, f"the entry `{entry}` of {self.describe()}")

    def store(self, purpose: KeyPurpose, secret: bytes, generation: int = 1) -> None:
        """Keep a key.

        Raises:
            ConfigError: There is one already.
            InputError: It is not 32 bytes long.
            StoreUnavailable: The keyring is locked or gone, or refuses.
        """
        require_secret_length(secret)
        entry = generation_name(purpose.value, generation, ".")
        with _mapped_keyring("read"):
            taken = self._keyring.get_password(self._service, entry) is not None
        if taken:
            raise _exists(purpose, self.describe())
        with _mapped_keyring("write"):
            self._keyring.set_password(self._service, entry, base64.b64encode(secret).decode("ascii"))

    def describe(self) -> str:
        """The keyring's kind and the service's name."""
        return f"the keyring `{_name(self._keyring)}` under `{self._service}`"


def _write(path: Path, secret: bytes) -> None:
    descriptor = os.open(path, _WRITE_FLAGS, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # whatever the umask took away
        written = os.write(descriptor, secret)
        if written != len(secret):
            msg = "only a part was written"
            raise OSError(msg)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_others(path: Path, status: os.stat_result, mode: int) -> None:
    if status.st_uid != os.geteuid():
        raise _unsafe(path, f"belongs to user {status.st_uid}", "keys belong to the user that runs the runtime")
    if status.st_mode & _OTHERS:
        is_open = f"is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
        raise _unsafe(path, is_open, f"if nobody has read it: chmod {mode:o} {path}")


def _variable(purpose: KeyPurpose, generation: int) -> str:
    return VARIABLE_PREFIX + generation_name(purpose.name, generation, "_")


def _decode(text: str, where: str) -> bytes:
    try:
        secret = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise _malformed(where, "is not base64", "give 32 bytes in base64") from None
    if len(secret) != SECRET_BYTES:
        raise _malformed(where, f"has {len(secret)} bytes", "give 32 bytes in base64")
    return secret


def _backends(backend: "KeyringBackend") -> "list[KeyringBackend]":
    """The backend, or those that a chain of them tries."""
    chained = getattr(backend, "backends", None)
    return [backend] if chained is None else list(chained)


def _is_unfit(backend: "KeyringBackend") -> bool:
    return any(
        kind.__module__.startswith(_UNFIT_BACKENDS) or "plaintext" in kind.__name__.lower()
        for kind in type(backend).__mro__
    )


def _name(backend: "KeyringBackend") -> str:
    return f"{type(backend).__module__}.{type(backend).__name__}"


@contextmanager
def _mapped_keyring(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Not only KeyringError: backends pass on what their desktop's bus or library raises, which has no common class.
        msg = f"cannot {what} the keyring: {type(error).__name__}"
        raise StoreUnavailable(msg, code="unavailable.keys", hint="unlock it, or keep the keys in files") from error


def _unsafe(path: Path, what: str, hint: str) -> ConfigError:
    return ConfigError(f"`{path}` {what}, so it is not used for keys", code="config.key_unsafe", hint=hint)


def _malformed(where: str, what: str, hint: str) -> ConfigError:
    return ConfigError(f"{where} {what}; a key has {SECRET_BYTES} bytes", code="config.key_malformed", hint=hint)


def _exists(purpose: KeyPurpose, where: str) -> ConfigError:
    msg = f"there is a key for `{purpose}` in {where} already; it is not replaced"
    return ConfigError(msg, code="config.key_exists")
