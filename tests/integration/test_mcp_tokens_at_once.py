"""Requests under one token go beside each other, whatever each of them waits for."""

import json

import anyio
import httpx2
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from symbi.adapters.mcp.oauth import (
    CREDENTIALS,
    IDENTITY,
    KEY,
    CarefulAuth,
    MemoryTokens,
    OAuthSecrets,
    OAuthTerms,
    provider,
)
from symbi.testing.web import scripted

pytestmark = pytest.mark.anyio

PEM = ec.generate_private_key(ec.SECP256R1()).private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
SECRETS = OAuthSecrets("swordfish", PEM.decode(), "signed")


class Slow:
    """A server that answers one request only once another one has come, and who gives out its tokens."""

    def __init__(self):
        self.another = anyio.Event()
        self.given = 0
        self.good = 1  # the number of the token that is

    async def __call__(self, heard, stream):
        here = f"http://{heard.headers['host']}"
        if heard.path.startswith("/.well-known/oauth-protected-resource"):
            await say(stream, {"resource": f"{here}/mcp", "authorization_servers": [here]})
        elif heard.path.startswith("/.well-known/"):
            ends = {"authorization_endpoint": f"{here}/authorize", "token_endpoint": f"{here}/token"}
            await say(stream, {"issuer": here, "response_types_supported": ["code"], **ends})
        elif heard.path == "/token":
            self.given += 1
            await say(stream, {"access_token": f"t{self.given}", "token_type": "Bearer", "expires_in": 3600})
        elif heard.headers.get("authorization") != f"Bearer t{self.good}":
            await say(stream, {}, "401 Unauthorized")
        else:
            if heard.path == "/slow":
                await self.another.wait()
            else:
                self.another.set()
            await say(stream, {})


async def say(stream, value, status="200 OK"):
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n"
    await stream.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


@pytest.mark.parametrize("grant", [CREDENTIALS, KEY, IDENTITY])
async def test_no_request_waits_until_another_one_is_answered(grant):
    script, failed = Slow(), []
    async with scripted(script) as (url, heard):
        terms = OAuthTerms(grant, url, "symbi")
        flow = provider(f"{url}/mcp", terms, SECRETS, MemoryTokens(lambda _: None), None)
        async with httpx2.AsyncClient(auth=CarefulAuth(flow, failed.append), trust_env=False, timeout=None) as client:

            async def ask(path):
                assert (await client.post(f"{url}{path}")).status_code == 200

            await ask("/other")
            script.another = anyio.Event()
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask, "/slow")
                    while heard[-1].path != "/slow":
                        await anyio.lowlevel.checkpoint()
                    tasks.start_soon(ask, "/other")
            assert script.given == 1
            script.good = 2  # the first one is good no more, which both find out
            with anyio.fail_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask, "/other")
                    tasks.start_soon(ask, "/other")
            assert script.given == 2, "what one has got is good for the other"
    assert failed == []
