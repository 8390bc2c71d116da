"""A service in a process of its own that counts what is asked of it: what happened, however often its caller dies.

It listens on a socket and answers one line of JSON for each connection, one after the other: an answer says that all
that was sent before is over. `add` is idempotent by its key; `send` is not, and neither has any other name; `find` says
whether a key was seen.
"""

import json
import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

IDEMPOTENT: Final = "add"
_LINE_BYTES: Final = 65_536
_LOOK_S: Final = 2.0


class CountingService:
    """The service, once it was started; it ends with `close`.

    Args:
        path: Where its socket is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(path))
        bound.listen(256)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _serve(bound)
            finally:
                os._exit(0)
        bound.close()

    def close(self) -> None:
        """End it."""
        self.ask({"name": "end"})
        os.waitpid(self._pid, 0)

    def ask(self, request: dict[str, Any], sent: Callable[[], None] = lambda: None) -> Any:
        """Its answer to one request; `sent` is called when the request is on its way and not answered."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            sent()
            return json.loads(_line(connection))

    def counts(self) -> dict[str, int]:
        """How often each thing happened, by its name and what it was about."""
        counted: dict[str, int] = self.ask({"name": "counts"})
        return counted


def _serve(bound: socket.socket) -> None:
    happened: Counter[str] = Counter()
    keys: set[str] = set()
    starter = os.getppid()
    bound.settimeout(_LOOK_S)
    while os.getppid() == starter:  # it does not outlive who has started it
        try:
            connection, _ = bound.accept()
        except TimeoutError:
            continue
        connection.settimeout(None)
        with connection:
            line = _line(connection)
            if not line.endswith(b"\n"):
                continue  # whoever asked died before it was said
            request = json.loads(line)
            name = request["name"]
            if name == "counts":
                answer: Any = happened
            elif name == "find":
                answer = {"status": "seen" if request["key"] in keys else "absent"}
            else:
                if name != IDEMPOTENT or request["key"] not in keys:
                    happened[f"{name} {request.get('about', '')}"] += 1
                keys.add(request.get("key", ""))
                answer = {"done": True}
            with suppress(OSError):  # whoever asked may be dead: what happened has happened
                connection.sendall(json.dumps(answer).encode() + b"\n")
        if name == "end":
            return


def _line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        part = connection.recv(_LINE_BYTES)
        if not part:
            break
        data += part
    return data
