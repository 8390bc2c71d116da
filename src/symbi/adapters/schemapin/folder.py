"""Documents in a folder of the operator's: `DOMAIN.json` and `DOMAIN.revocations.json`."""

import os
import stat
from pathlib import Path

import anyio.to_thread

from symbi.errors import InputError, PermitRefused, Unavailable
from symbi.guard.action import ConnectServer
from symbi.guard.permit import Authority, Permit
from symbi.tools.schemapin.documents import MAX_DOCUMENT_BYTES, parse_domain


class FolderSource:
    """A folder.

    Args:
        authority: Knows live permits.
        folder: Where the documents are.
    """

    def __init__(self, authority: Authority, folder: Path) -> None:
        self._authority = authority
        self._folder = folder

    @property
    def name(self) -> str:
        """For the record."""
        return f"folder:{self._folder.name}"

    @property
    def remote(self) -> bool:
        """The operator put them there."""
        return False

    async def discovery(self, permit: Permit[ConnectServer], domain: str) -> bytes | None:
        """The file of a domain; None where there is none.

        Raises:
            PermitRefused: The permit is not live, or does not name the domain.
            Unavailable: It is there, and cannot be read.
            InputError: It is no file, or too large.
        """
        return await self._read(permit, domain, "json")

    async def revocation(self, permit: Permit[ConnectServer], domain: str, endpoint: str | None) -> bytes | None:
        """The file of a domain; None where there is none.

        Raises:
            As `discovery`.
        """
        del endpoint
        return await self._read(permit, domain, "revocations.json")

    async def _read(self, permit: Permit[ConnectServer], domain: str, ending: str) -> bytes | None:
        action = self._authority.check(permit, ConnectServer)
        if action.discovery != domain:
            msg = f"the permit is not for asking `{domain}`"
            raise PermitRefused(msg, code="permit.foreign", effect_id=permit.effect_id)
        path = self._folder / f"{parse_domain(domain).replace(':', '_')}.{ending}"
        return await anyio.to_thread.run_sync(_content, path)


def _content(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        if path.parent.is_dir() and not os.path.lexists(path):
            return None
        msg = f"cannot read `{path}`: the folder is not there, or the link leads nowhere"  # who knows what it would say
        raise Unavailable(msg, code="unavailable.discovery") from error
    except OSError as error:
        msg = f"cannot read `{path}`: {error.strerror or error}"
        raise Unavailable(msg, code="unavailable.discovery") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InputError(f"`{path}` is no file", code="tool.discovery")
        try:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        except OSError as error:
            msg = f"cannot read `{path}`: {error.strerror or error}"
            raise Unavailable(msg, code="unavailable.discovery") from error
    if len(content) > MAX_DOCUMENT_BYTES:
        raise InputError(f"`{path}` is larger than {MAX_DOCUMENT_BYTES} bytes", code="tool.discovery")
    return content
