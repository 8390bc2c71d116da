"""What the conformance suite runs as a client: our own, behind a gate that allows everything.

    conformance client --command "python tests/conformance/client.py" --requirements 2025-11-25 -o out

The suite names the scenario in `MCP_CONFORMANCE_SCENARIO`, hands over what belongs to it as JSON in
`MCP_CONFORMANCE_CONTEXT`, the protocol version in `MCP_CONFORMANCE_PROTOCOL_VERSION`, and the URL as the last argument.
The driver does what each scenario's server waits for, through the catalogue and the gate, and ends with 0.
"""

import json
import os
import sys
from urllib.parse import parse_qs, urlsplit

import anyio
import httpx2
from mcp.shared.auth import AuthorizationCodeResult

from symbi.adapters.mcp import HttpToolServer
from symbi.adapters.mcp.oauth import CODE, CREDENTIALS, IDENTITY, KEY, OAuthTerms
from symbi.adapters.mcp.session import SessionTerms
from symbi.adapters.secrets import EnvironmentSecrets
from symbi.clock import SystemClock
from symbi.errors import SymbiError
from symbi.guard.action import InvokeTool, ServerElicitation, ServerRoots, ServerSampling
from symbi.policy.catalog import ToolType
from symbi.policy.policies import PolicySet
from symbi.testing.gate import open_gate
from symbi.tools.asking import AskKind
from symbi.tools.catalog import Catalog, ServerLink, ToolVerifier, VerificationMode
from symbi.tools.invoke import Invoker
from symbi.types import AgentId, EffectId, Principal

SCENARIO = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
CONTEXT = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "")
ME = Principal(AgentId("conformance"))
REDIRECT = "http://127.0.0.1:3999/callback"
METADATA_URL = "https://conformance-test.local/client-metadata.json"


class Person:
    """Agrees to everything: fills in what a form has for a default, and lets the server be used in his name."""

    can = tuple(AskKind)

    def __init__(self, guard):
        self.guard = guard
        self.location = ""

    def marked(self, mark):
        pass

    async def progress(self, progress):
        print("progress", progress, file=sys.stderr)

    async def log(self, message):
        print("log", message, file=sys.stderr)

    async def answer(self, permit):
        action = permit.action
        self.guard.authority.redeem(permit, type(action))
        match action:
            case ServerElicitation():
                fields = (action.question.get("requestedSchema") or {}).get("properties", {})
                return {"action": "accept", "content": {name: default(field) for name, field in fields.items()}}
            case ServerSampling():
                text = {"type": "text", "text": "an answer"}
                return {"role": "assistant", "content": text, "model": "none", "stopReason": "endTurn"}
            case ServerRoots():
                return {"roots": [{"uri": "file:///work", "name": "work"}]}

    async def show(self, url):
        async with httpx2.AsyncClient() as browser:
            response = await browser.get(url, follow_redirects=False)
        self.location = response.headers.get("location", "")

    async def code(self):
        values = {name: found[0] for name, found in parse_qs(urlsplit(self.location).query).items()}
        return AuthorizationCodeResult(code=values["code"], state=values.get("state"), iss=values.get("iss"))


def default(field):
    if "default" in field:
        return field["default"]
    return {"string": "text", "number": 1.0, "integer": 1, "boolean": True}.get(field.get("type"), "text")


def example(schema):
    """A value that fits a schema."""
    if "default" in schema or "const" in schema:
        return schema.get("default", schema.get("const"))
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            wanted = schema.get("required", schema.get("properties", {}))
            return {name: example(schema.get("properties", {}).get(name, {})) for name in wanted}
        case "array":
            return [example(schema.get("items", {}))]
        case "number" | "integer":
            return 1
        case "boolean":
            return True
        case _:
            return "text"


async def issuer_of(url):
    """Who gives out the tokens: what an operator would write into the configuration."""
    parts = urlsplit(url)
    async with httpx2.AsyncClient(base_url=f"{parts.scheme}://{parts.netloc}") as browser:
        named = await browser.get(f"/.well-known/oauth-protected-resource{parts.path}")
        return named.json()["authorization_servers"][0]


async def vouched_for(issuer, url):
    """What the identity provider signs of us: what an operator has done by whatever keeps people signed in."""
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
        "subject_token": CONTEXT["idp_id_token"],
        "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        "client_id": CONTEXT["idp_client_id"],
        "audience": issuer,
        "resource": url,
    }
    async with httpx2.AsyncClient() as browser:
        answered = await browser.post(CONTEXT["idp_token_endpoint"], data=form)
        return answered.json()["access_token"]


async def oauth(url):
    if not SCENARIO.startswith("auth/"):
        return None
    if SCENARIO == "auth/client-credentials-basic":
        return OAuthTerms(CREDENTIALS, await issuer_of(url), CONTEXT["client_id"], CONTEXT["client_secret"])
    if SCENARIO == "auth/client-credentials-jwt":
        return OAuthTerms(KEY, await issuer_of(url), CONTEXT["client_id"], private_key="vault://key")
    if SCENARIO == "auth/enterprise-managed-authorization":
        issuer = await issuer_of(url)
        os.environ["SYMBI_SECRET_ASSERTION"] = await vouched_for(issuer, url)
        return OAuthTerms(
            IDENTITY, issuer, CONTEXT["client_id"], CONTEXT["client_secret"], assertion="vault://assertion"
        )
    return OAuthTerms(
        CODE,
        client_id=CONTEXT.get("client_id", ""),
        client_secret=CONTEXT.get("client_secret", ""),
        redirect_uri=REDIRECT,
        metadata_url=METADATA_URL,
    )


def arguments_for(tool, offered):
    schema = tool.definition.input_schema
    calls = [call for call in CONTEXT.get("toolCalls", ()) if call.get("name") == tool.definition.name]
    if calls:
        return [call.get("arguments", {}) for call in calls]
    if tool.definition.name == "json_schema_echo":
        # One of a schema that we call no tool with is among them: it is handed back as it came, all the same.
        return [{"schema": dict(one.input_schema)} for one in offered if one.name != tool.definition.name]
    return [{name: example(field) for name, field in schema.get("properties", {}).items()}]


async def below_the_gate(server, guard, tool, arguments):
    """A call that the gate refuses, for policies cannot see a number of five decimal places, nor the schema a null."""
    action = InvokeTool(principal=ME, tool=tool.ref, values=arguments)
    permit = guard.authority.mint(EffectId(f"below-{tool.ref.name}"), action)
    print(tool.ref.name, (await server.call(permit, {})).content, file=sys.stderr)


async def converse(catalog, invoker, person):
    for tool in catalog.tools:
        for arguments in arguments_for(tool, catalog.offered("s")):
            if SCENARIO == "http-custom-headers":
                await below_the_gate(catalog.link("s").server, person.guard, tool, arguments)
                continue
            try:
                action = invoker.prepare(ME, tool.ref.name, arguments)
                result = await invoker.call(action, person)
                print(tool.ref.name, result.value, file=sys.stderr)
            except SymbiError as error:
                print(tool.ref.name, type(error).__name__, error, file=sys.stderr)


async def main(url):
    async with open_gate(clock=SystemClock()) as gate:
        person = Person(gate.guard)
        os.environ["SYMBI_SECRET_KEY"] = CONTEXT.get("private_key_pem", "")
        secrets = EnvironmentSecrets(gate.guard.authority)
        server = HttpToolServer("s", url, gate.guard.authority, secrets=secrets)
        mode = "legacy" if VERSION and VERSION < "2026" else "auto"
        server.terms = SessionTerms(asks=frozenset(AskKind), mode=mode)
        server.oauth = await oauth(url)
        server.consent = person
        verifier = ToolVerifier(VerificationMode.DISABLED, gate.store, gate.log, gate.engine, gate.clock)
        link = ServerLink("s", server.command_line, server, server.secret_paths, session=server)
        catalog = Catalog(gate.guard, verifier, [link])

        async def changed():
            old = gate.engine.current
            tools = [ToolType(ref.name, ref.input_schema) for ref in catalog.refs]
            gate.engine.replace(PolicySet.load(old.sources, old.compiled, tools))

        async with server:
            await catalog.refresh("s")
            await changed()
            await converse(catalog, Invoker(catalog, gate.guard), person)


if __name__ == "__main__":
    try:
        anyio.run(main, sys.argv[-1])
    except SymbiError as error:
        print(type(error).__name__, error, error.hint or "", file=sys.stderr)
        sys.exit(1)
