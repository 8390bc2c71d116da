"""An address on the web that is told of held actions. It gets no arguments, and decides nothing."""

from collections.abc import Mapping

import anyio
import httpx2

from symbi.crypto.canonical import canonical_json
from symbi.errors import Unavailable
from symbi.types import JsonValue


class WebhookNotice:
    """Posts the facts to an address; follows no redirect, and reads nothing of the answer but its status.

    Args:
        address: `https:`, or `http:` to this machine.
        timeout_s: How long it may take.
    """

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self._address = address
        self._timeout_s = timeout_s

    async def __call__(self, facts: Mapping[str, JsonValue]) -> None:
        """Tell it.

        Raises:
            Unavailable: It cannot be reached, took too long, or did not answer 2xx.
        """
        headers = {"content-type": "application/json"}
        try:
            with anyio.fail_after(self._timeout_s):
                async with (
                    httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=self._timeout_s) as client,
                    client.stream("POST", self._address, content=canonical_json(facts), headers=headers) as answer,
                ):
                    status = answer.status_code
        except (TimeoutError, httpx2.TimeoutException):
            raise _failed(f"the webhook took longer than {self._timeout_s:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise _failed(f"the webhook cannot be reached: {type(error).__name__}") from error
        if not 200 <= status < 300:  # noqa: PLR2004 - the successful ones
            raise _failed(f"the webhook answered {status}")


def _failed(message: str) -> Unavailable:
    return Unavailable(message, code="unavailable.notice")
