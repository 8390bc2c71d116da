"""The other end of the control socket: a command that asks something of whoever owns the data folder."""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from symbi.api.control import OPERATION_TIMEOUT_S, SOCKET_NAME, peer_of, short_path
from symbi.errors import StoreUnavailable
from symbi.guard.outcome import decode_error
from symbi.types import JsonValue

MAX_ANSWER_BYTES: Final = 67_108_864  # a list of many approvals with large arguments
_RECEIVE_BYTES: Final = 65_536


def connect_owner(folder: Path) -> socket.socket | None:
    """A connection to the owner of a data folder; None where nobody serves there.

    Raises:
        StoreUnavailable: Somebody serves there who is neither the folder's owner, nor we, nor root.
    """
    try:
        if not (folder / SOCKET_NAME).is_socket():
            return None
        owner = folder.stat().st_uid
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(OPERATION_TIMEOUT_S)
    except OSError as error:
        msg = f"cannot look for the owner of `{folder}`: {error.strerror or error}"
        raise StoreUnavailable(msg, code="unavailable.control") from error
    try:
        with short_path(folder) as short:
            connection.connect(f"{short}/{SOCKET_NAME}")
    except ConnectionRefusedError:
        connection.close()
        return None  # left behind by an owner that died
    except OSError as error:
        connection.close()
        msg = f"cannot reach the owner of `{folder}`: {error.strerror or error}"
        raise StoreUnavailable(msg, code="unavailable.control") from error
    if peer_of(connection).uid not in {owner, os.geteuid(), 0}:
        connection.close()
        msg = f"a stranger serves the control socket in `{folder}`"
        raise StoreUnavailable(msg, code="unavailable.control", hint="look at who can write in the folder")
    return connection


def ask_owner(
    connection: socket.socket,
    operation: str,
    arguments: Mapping[str, JsonValue],
    timeout_s: float = OPERATION_TIMEOUT_S,
) -> JsonValue:
    """Ask, and close the connection.

    Args:
        connection: From `connect_owner`.
        operation: What is asked.
        arguments: Its arguments.
        timeout_s: How long the answer may take.

    Raises:
        SymbiError: What the owner said.
        StoreUnavailable: It did not answer.
    """
    request = json.dumps({"operation": operation, "arguments": dict(arguments)}).encode() + b"\n"
    data = bytearray()
    try:
        with connection:
            connection.settimeout(timeout_s)
            connection.sendall(request)
            while part := connection.recv(_RECEIVE_BYTES):
                data += part
                if len(data) > MAX_ANSWER_BYTES:
                    msg = f"the owner answers more than {MAX_ANSWER_BYTES} bytes"
                    raise StoreUnavailable(msg, code="unavailable.control")
        answer = json.loads(data)
    except (OSError, ValueError) as error:
        msg = f"the owner of the data folder did not answer: {error or type(error).__name__}"
        hint = "it may have ended meanwhile; try again"
        raise StoreUnavailable(msg, code="unavailable.control", hint=hint) from error
    if "error" in answer:
        raise decode_error(json.dumps(answer["error"]).encode())
    value: JsonValue = answer.get("ok")
    return value
