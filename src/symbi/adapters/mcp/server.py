"""`StdioToolServer`: an MCP server as a process of ours."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from symbi.adapters.mcp.base import McpServer
from symbi.adapters.mcp.stdio import ServerProcess, Start
from symbi.adapters.mcp.traffic import Line
from symbi.errors import ConfigError
from symbi.guard.permit import Authority
from symbi.tools.mask import put_in, references
from symbi.tools.port import SecretSource

INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""What a server gets of our environment; everything else has to be configured for it."""

FOREIGN_PREFIXES: Final = ("SYMBI_KEY_", "SYMBI_SECRET_")
"""Variables that are ours alone and cannot be configured for a server."""


class StdioToolServer(McpServer):
    """A server as a process of ours.

    Args:
        name: Its name in the configuration.
        command: Program and arguments; no shell.
        authority: Redeems permits.
        env: Its environment besides `INHERITED`; a `vault://path` value resolves when it is started.
        cwd: Its working folder, or None for ours.
        secrets: Where those references resolve.
        start_timeout_s: Seconds to start, agree on a protocol version and list the tools.

    Attributes:
        start: Starts it elsewhere than as a process of ours; it inherits nothing of our environment then.

    Raises:
        ConfigError: There is no command, or `env` names a variable that holds keys or secrets of ours.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        authority: Authority,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        secrets: SecretSource | None = None,
        start_timeout_s: float = 30.0,
    ) -> None:
        super().__init__(name, authority, secrets, start_timeout_s)
        env = env or {}
        if not command:
            msg = f"server `{name}` has no command"
            raise ConfigError(msg)
        for variable in env:
            if variable.startswith(FOREIGN_PREFIXES):
                msg = f"`{variable}` cannot be given to server `{name}`"
                raise ConfigError(msg, hint="it holds a key or a secret of the runtime; use a `vault://` value")
        self._command = tuple(command)
        self._env = dict(env)
        self._cwd = cwd
        self.start: Start | None = None

    @property
    def pid(self) -> int | None:
        """Its process, while it has one."""
        line = None if self._session is None else self._session.line
        return line.pid if isinstance(line, ServerProcess) else None

    @property
    def command_line(self) -> str:
        """The command."""
        return shlex.join(self._command)

    @property
    def secret_paths(self) -> tuple[str, ...]:
        """The vault paths that its environment asks for, sorted."""
        return tuple(sorted(set(references(list(self._env.values())))))

    def _line(self, secrets: Mapping[str, str]) -> Line:
        """A process with what is inherited and what is configured, vault references resolved."""
        given = {name: str(put_in(value, secrets)) for name, value in self._env.items()}
        if self.start is not None:
            return ServerProcess(self._command, given, self._cwd, self.start)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return ServerProcess(self._command, inherited | given, self._cwd)
