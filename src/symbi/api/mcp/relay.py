"""Sessions of the gateway over the control socket: several clients on standard streams share one runtime.

Whoever finds that the data folder has an owner connects to it, says which client it stands for, and then only carries
bytes. The owner decides by the operating-system user at the other end, through the gate (`gateway.session`), and serves
the session as if the client were its own.
"""

import json
import socket
from contextlib import suppress
from functools import partial
from typing import Final

import anyio

from symbi.api.control import SESSION
from symbi.api.mcp.lines import receive_from, send_to
from symbi.errors import StoreUnavailable, SymbiError
from symbi.guard.outcome import decode_error

MAX_GREETING_BYTES: Final = 65_536
GREETING_S: Final = 60.0


async def relay(connection: socket.socket, client: str, reading: int, writing: int) -> None:
    """Be the carrier between our standard streams and the owner of the data folder, until either ends.

    Args:
        connection: To the owner.
        client: For which client we stand.
        reading: Our standard input.
        writing: Our standard output.

    Raises:
        SymbiError: What the owner says.
        StoreUnavailable: It does not answer.
    """
    with connection:
        connection.setblocking(False)
        descriptor = connection.fileno()
        request = {"operation": SESSION, "arguments": {"client": client}}
        with anyio.move_on_after(GREETING_S) as scope:
            try:
                await send_to(descriptor, json.dumps(request).encode() + b"\n")
                rest = await _greeted(descriptor)
            except OSError as error:
                msg = "the owner of the data folder has broken off"
                raise StoreUnavailable(msg, code="unavailable.control") from error
        if scope.cancelled_caught:
            raise StoreUnavailable("the owner of the data folder did not answer", code="unavailable.control")
        async with anyio.create_task_group() as tasks:

            async def carry(source: int, target: int, first: bytes = b"", *, ours: bool) -> None:
                try:
                    await send_to(target, first)
                    while part := await receive_from(source):
                        await send_to(target, part)
                except OSError:
                    pass  # the other side is gone: so are we
                if ours:
                    with suppress(OSError):  # the owner is gone, which the other direction meets as well
                        connection.shutdown(socket.SHUT_WR)  # it may still answer what was asked
                else:
                    tasks.cancel_scope.cancel("the owner has ended the session")

            tasks.start_soon(partial(carry, reading, descriptor, ours=True))
            tasks.start_soon(partial(carry, descriptor, writing, rest, ours=False))


async def _greeted(descriptor: int) -> bytes:
    """What came behind the owner's first line, which lets us in.

    Raises:
        SymbiError: It does not.
    """
    data = bytearray()
    while b"\n" not in data:
        part = await receive_from(descriptor)
        data += part
        if not part or len(data) > MAX_GREETING_BYTES:
            raise StoreUnavailable("the owner of the data folder did not answer", code="unavailable.control")
    line, _, rest = bytes(data).partition(b"\n")
    try:
        answer = json.loads(line)
    except ValueError:
        raise StoreUnavailable("the owner of the data folder answers nonsense", code="unavailable.control") from None
    if "error" in answer:
        error: SymbiError = decode_error(json.dumps(answer["error"]).encode())
        if error.code == "control.operation":
            msg = "the data folder has an owner that serves no MCP clients"
            hint = "it is `symbi run` or an older release: wait until it ends, or stop it"
            raise StoreUnavailable(msg, code="unavailable.gateway", hint=hint)
        raise error
    return rest
