"""Where `vault://` references resolve: the environment, a file of mode 0600, the system's keyring, or several in order.

Each is a `SecretSource`: it takes the live permit of an action that names the path, so that nothing but an effect
that the gate let through can ask for a secret. Values are read anew each time and kept nowhere.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from symbi.errors import PermitRefused, Unavailable
from symbi.guard.action import ConnectServer, InvokeTool, RunContainer
from symbi.guard.permit import Authority, Permit
from symbi.tools.port import SecretSource

ENVIRONMENT_PREFIX: Final = "SYMBI_SECRET_"
KEYRING_SERVICE: Final = "symbi.secrets"  # not the service of the runtime's own keys: no path may reach those
MAX_FILE_BYTES: Final = 1_048_576  # of a file of secrets; bounds what one look-up reads
_PATH: Final = re.compile(r"[A-Za-z0-9_./-]{1,256}")

SecretPermit = Permit[InvokeTool] | Permit[ConnectServer] | Permit[RunContainer]


class EnvironmentSecrets:
    """`vault://oncall/api-token` is the variable `SYMBI_SECRET_ONCALL_API_TOKEN`; `/`, `-` and `.` become `_`.

    Args:
        authority: Knows live permits.
        environment: The variables; the process's own where not given.
    """

    def __init__(self, authority: Authority, environment: Mapping[str, str] | None = None) -> None:
        self._authority = authority
        self._environment = os.environ if environment is None else environment

    def resolve(self, permit: SecretPermit, path: str) -> str | None:
        """The variable's value, or None where it is not set or empty."""
        _require_named(self._authority, permit, path)
        return self._environment.get(variable_name(path)) or None


class FileSecrets:
    """A file that nobody else can read: TOML, or lines of `path = value`.

    In TOML (a name ending in `.toml`) tables are folders: `token` under `[oncall]` is `vault://oncall/token`, and so
    is the quoted key `"oncall/token"`. In any other file a line is `path = value`, as it stands but for white space
    around it; blank lines and lines that begin with `#` are passed over.

    Args:
        authority: Knows live permits.
        file: The file; where there is none, the source has no secrets.
    """

    def __init__(self, authority: Authority, file: Path) -> None:
        self._authority = authority
        self._file = file

    def resolve(self, permit: SecretPermit, path: str) -> str | None:
        """The value that stands in the file, or None.

        Raises:
            PermitRefused: The permit is not live, or its action does not name the path.
            Unavailable: The file is not ours alone, not a file, too large, or cannot be read.
        """
        _require_named(self._authority, permit, path)
        text = self._read()
        if text is None:
            return None
        values = self._toml(text) if self._file.suffix == ".toml" else self._lines(text)
        return values.get(path) or None

    def _read(self) -> str | None:
        try:
            descriptor = os.open(self._file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(f"cannot be read: {error.strerror}") from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self._unavailable("is not a file")
            if status.st_uid not in {os.geteuid(), 0} or status.st_mode & 0o077:
                hint = f"`chmod 600 {self._file}`, as the user that runs Symbi"
                raise self._unavailable(f"can be read by others (mode {stat.S_IMODE(status.st_mode):04o})", hint)
            data = os.read(descriptor, MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self._unavailable(f"cannot be read: {error.strerror}") from None
        finally:
            os.close(descriptor)
        if len(data) > MAX_FILE_BYTES:
            raise self._unavailable(f"has more than {MAX_FILE_BYTES} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self._unavailable("is not UTF-8") from None

    def _toml(self, text: str) -> Mapping[str, str]:
        values: dict[str, str] = {}
        try:
            pending: list[tuple[str, object]] = [("", tomllib.loads(text))]
        except (tomllib.TOMLDecodeError, RecursionError):
            # The parser's own words may quote a secret.
            raise self._unavailable("is not TOML") from None
        while pending:
            path, value = pending.pop()
            if isinstance(value, dict):
                pending.extend((f"{path}/{key}" if path else key, item) for key, item in value.items())
            elif isinstance(value, str) and path not in values:
                values[path] = value
            else:
                raise self._unavailable(f"says `{path}` twice, or as something that is not text")
        return values

    def _lines(self, text: str) -> Mapping[str, str]:
        values: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            path, equals, value = line.partition("=")
            if not equals or not _PATH.fullmatch(path.strip()) or path.strip() in values:
                raise self._unavailable(f"has no new `path = value` in line {number}")
            values[path.strip()] = value.strip()
        return values

    def _unavailable(self, why: str, hint: str | None = None) -> Unavailable:
        return Unavailable(f"the file of secrets `{self._file}` {why}", code="unavailable.secrets", hint=hint)


class KeyringSecrets:
    """The system's keyring: service `symbi.secrets`, user name the path.

    Args:
        authority: Knows live permits.
    """

    def __init__(self, authority: Authority) -> None:
        self._authority = authority

    def resolve(self, permit: SecretPermit, path: str) -> str | None:
        """The password that the keyring holds under the path, or None.

        Raises:
            PermitRefused: The permit is not live, or its action does not name the path.
            Unavailable: There is no keyring, or it does not open.
        """
        import keyring  # noqa: PLC0415 - it looks for back ends when it is imported, which takes a while
        from keyring.errors import KeyringError  # noqa: PLC0415 - likewise

        _require_named(self._authority, permit, path)
        try:
            return keyring.get_password(KEYRING_SERVICE, path) or None
        except KeyringError as error:
            msg = f"the system's keyring cannot be used: {type(error).__name__}"
            hint = "unlock it, or take `keyring` out of `secrets.sources`"
            raise Unavailable(msg, code="unavailable.secrets", hint=hint) from None


class SecretChain:
    """Several sources, asked in order; the first that has a value gives it, and one that fails ends the search.

    Args:
        sources: First asked first.
    """

    def __init__(self, sources: Sequence[SecretSource]) -> None:
        self._sources = tuple(sources)

    def resolve(self, permit: SecretPermit, path: str) -> str | None:
        """The first value found, or None.

        Raises:
            PermitRefused: The permit is not live, or its action does not name the path.
            Unavailable: A source that was asked cannot be used.
        """
        found = (source.resolve(permit, path) for source in self._sources)
        return next((value for value in found if value is not None), None)


def variable_name(path: str) -> str:
    """The environment variable of a vault path."""
    return ENVIRONMENT_PREFIX + re.sub(r"[/.-]", "_", path).upper()


def _require_named(authority: Authority, permit: SecretPermit, path: str) -> None:
    """Return if the permit is live and its action names the path."""
    action: InvokeTool | ConnectServer | RunContainer
    if isinstance(permit.action, ConnectServer):
        action = authority.check(permit, ConnectServer)
    elif isinstance(permit.action, RunContainer):
        action = authority.check(permit, RunContainer)
    else:
        action = authority.check(permit, InvokeTool)
    if path not in action.secrets or not _PATH.fullmatch(path):
        msg = f"the action does not name the secret `{path}`"
        raise PermitRefused(msg, code="permit.secret", effect_id=permit.effect_id)
