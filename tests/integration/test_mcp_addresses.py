"""Servers at an address in whole runtimes, as the configuration has them, and the tokens that they want."""

import importlib.util
import json
from urllib.parse import parse_qs

import anyio
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from mcp.client.auth import OAuthFlowError

from symbi.adapters.mcp import HttpToolServer
from symbi.adapters.mcp.oauth import (
    CODE,
    CREDENTIALS,
    IDENTITY,
    KEY,
    LoopbackConsent,
    MemoryTokens,
    OAuthSecrets,
    OAuthTerms,
    provider,
)
from symbi.adapters.secrets import EnvironmentSecrets
from symbi.clock import SystemClock
from symbi.config import load_settings
from symbi.errors import ConfigError, ToolServerUnavailable
from symbi.guard.action import ConnectServer
from symbi.guard.permit import Authority
from symbi.testing.tool_servers import PRINCIPAL
from symbi.testing.web import scripted, served
from symbi.types import EffectId
from symbi.wiring import compile_agents, open_runtime

pytestmark = pytest.mark.anyio
AGENT = 'agent asks {\n    capabilities = ["house.echo", "log"]\n    with { tool("house.echo", text = "hi") }\n}\n'


@pytest.fixture
def house(root):
    path = root / "tests" / "data" / "servers" / "house.py"
    spec = importlib.util.spec_from_file_location("house", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with served(module.application(more=False)) as url:
        yield f"{url}/mcp"


def written(folder, server):
    (folder / "policies").mkdir()
    (folder / "policies" / "p.cedar").write_text('@id("all") permit (principal, action, resource);')
    (folder / "asks.symbi").write_text(AGENT)
    (folder / "symbi.toml").write_text(f'[mcp]\ntool_verification = "tofu"\n[mcp.servers.house]\n{server}')
    return folder / "symbi.toml"


@pytest.mark.parametrize("protocol", ["auto", "legacy", "2026-07-28"])
async def test_an_agent_calls_a_tool_at_an_address(tmp_path, house, protocol):
    settings = load_settings(written(tmp_path, f'url = "{house}"\nprotocol = "{protocol}"\n'), environ={})
    async with open_runtime(settings) as runtime:
        compiled = compile_agents(tmp_path / "asks.symbi")
        outcome = await runtime.run(compiled, compiled.agents[0], {})
        assert outcome.error is None
        assert outcome.output == "hi"
        link = runtime.catalog.link("house")
        assert (link.command, link.pid()) == (house, None)
        assert link.server._session.modern is (protocol != "legacy")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('oauth_grant = "client_credentials"', "needs `oauth_issuer`"),
        ('oauth_grant = "authorization_code"', "needs `oauth_redirect_uri`"),
        ('oauth_grant = "private_key_jwt"', "needs `oauth_issuer`"),
        (
            'oauth_grant = "private_key_jwt"\noauth_issuer = "https://login.example"\noauth_client_id = "c"',
            "needs `oauth_private_key`",
        ),
        (
            'oauth_grant = "identity_assertion"\noauth_issuer = "https://x.example"\noauth_client_id = "c"\noauth_client_secret = "vault://c"',
            "needs `oauth_assertion`",
        ),
        ('oauth_private_key = "swordfish"', "must be a reference, and not the secret itself"),
        ('oauth_client_secret = "swordfish"', "must be a reference, and not the secret itself"),
        ('asks = ["money"]', "must be one of"),
        ('protocol = "2024"', "must be one of"),
    ],
)
async def test_what_does_not_fit_together_is_refused_at_start(tmp_path, keys, message):
    config = written(tmp_path, f'url = "https://tools.example/mcp"\n{keys}\n')
    with pytest.raises(ConfigError, match=message) as caught:
        async with open_runtime(load_settings(config, environ={})):
            pass
    assert "swordfish" not in str(caught.value)


# --- tokens --------------------------------------------------------------------------------------------


class Guarded:
    """A server that wants a token, and who gives it out, in one script; `asked` is what was asked for tokens."""

    def __init__(self, elsewhere=""):
        self.elsewhere = elsewhere
        self.asked = []

    async def __call__(self, heard, stream):
        here = f"http://{heard.headers['host']}"
        path = heard.path.partition("?")[0]
        if path.startswith("/.well-known/oauth-protected-resource"):
            named = {"authorization_servers": [self.elsewhere or here], "scopes_supported": ["everything"]}
            await say(stream, {"resource": f"{here}/mcp", **named})
        elif path.startswith("/.well-known/"):
            ends = {"authorization_endpoint": f"{here}/authorize", "token_endpoint": f"{here}/token"}
            more = {"response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"]}
            await say(stream, {"issuer": here, "registration_endpoint": f"{here}/register", **ends, **more})
        elif path == "/register":
            await say(stream, {**json.loads(heard.body), "client_id": "c1"}, 201)
        elif path == "/token":
            self.asked.append((heard.headers.get("authorization", ""), parse_qs(heard.body.decode())))
            await say(stream, *self.answer(here, self.asked[-1][1]))
        elif heard.headers.get("authorization") != "Bearer token-abcdef":
            await say(stream, {}, 401, 'WWW-Authenticate: Bearer realm="x"\r\n')
        elif heard.method == "POST":
            await self.serve(json.loads(heard.body), stream)
        else:
            await say(stream, {}, 405)

    def answer(self, _issuer, _form):
        return {"access_token": "token-abcdef", "token_type": "Bearer", "expires_in": 3600}, 200

    async def serve(self, message, stream):
        match message.get("method"):
            case "initialize":
                info = {"name": "g", "version": "1"}
                given = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
                await say(stream, {"jsonrpc": "2.0", "id": message["id"], "result": given})
            case "tools/list":
                await say(stream, {"jsonrpc": "2.0", "id": message["id"], "result": {"tools": []}})
            case _ if "id" in message:
                error = {"code": -32601, "message": "no"}
                await say(stream, {"jsonrpc": "2.0", "id": message["id"], "error": error})
            case _:
                await say(stream, {}, 202)


async def say(stream, value, status=200, more=""):
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n{more}"
    await stream.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


async def connected(server, authority):
    action = ConnectServer(principal=PRINCIPAL, server="s", command=server.command_line, secrets=server.secret_paths)
    return await server.connect(authority.mint(EffectId("c"), action))


def guarded_server(url, terms, **more):
    authority = Authority(SystemClock())
    secrets = EnvironmentSecrets(authority, {"SYMBI_SECRET_OUR_SECRET": "swordfish", **more})
    server = HttpToolServer("s", f"{url}/mcp", authority, secrets=secrets)
    server.oauth = terms(url) if callable(terms) else terms
    return server, authority


async def test_credentials_of_ours_get_a_token_from_their_issuer():
    script = Guarded()
    async with scripted(script) as (url, heard):
        terms = OAuthTerms(CREDENTIALS, f"{url}/", "symbi", "vault://our/secret", scope="tools")
        server, authority = guarded_server(url, terms)
        assert server.secret_paths == ("our/secret",)
        async with server:
            assert await connected(server, authority) == []
            [(basic, form)] = script.asked
            assert basic.startswith("Basic ")
            assert form["grant_type"] == ["client_credentials"]
            assert server._mask.text("a token-abcdef b") == "a vault://oauth/s b"
            await connected(server, authority)
            assert len(script.asked) == 1, "the token is kept as long as the process lives"
        assert not any(b"swordfish" in one.body for one in heard)


async def test_credentials_do_not_go_to_whom_the_server_names_instead():
    thief = Guarded()
    async with scripted(thief) as (elsewhere, stolen):
        async with scripted(Guarded(elsewhere)) as (url, _):
            terms = OAuthTerms(CREDENTIALS, f"{url}/", "symbi", "vault://our/secret")
            server, authority = guarded_server(url, terms)
            async with server:
                with pytest.raises(ToolServerUnavailable, match="wants authorisation, which fails"):
                    await connected(server, authority)
        assert thief.asked == []
        assert not any("authorization" in one.headers for one in stolen)


class Judges(Guarded):
    """One that looks at what was signed, as RFC 7523 has it, and quotes what it refuses."""

    def __init__(self, public, elsewhere=""):
        super().__init__(elsewhere)
        self.public = public
        self.claims = []

    def answer(self, issuer, form):
        [assertion] = form.get("client_assertion") or form["assertion"]
        try:
            claims = jwt.decode(
                assertion,
                self.public,
                algorithms=["ES256", "RS256"],
                audience=issuer,
                options={"require": ["exp", "iat", "jti", "iss", "sub", "aud"]},
            )
        except jwt.InvalidTokenError as error:
            return {"error": "invalid_client", "error_description": f"{error}: {assertion}"}, 401
        assert claims["jti"] not in [one["jti"] for one in self.claims]
        self.claims.append(claims)
        return super().answer(issuer, form)


def pem_of(key, password=None):
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden).decode()


P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)


def by_key(url):
    return OAuthTerms(KEY, url, "symbi", private_key="vault://our/key", scope="tools")


@pytest.mark.parametrize(("key", "algorithm"), [(P256, "ES256"), (RSA, "RS256")], ids=["P-256", "RSA"])
async def test_a_key_of_ours_signs_who_we_are_for_the_issuer_alone(key, algorithm):
    script = Judges(key.public_key())
    async with scripted(script) as (url, heard):
        server, authority = guarded_server(url, by_key, SYMBI_SECRET_OUR_KEY=pem_of(key))
        assert server.secret_paths == ("our/key",)
        async with server:
            assert await connected(server, authority) == []
            await connected(server, authority)
        [(basic, form)] = script.asked
        [claims] = script.claims
        assert (claims["iss"], claims["sub"], claims["aud"]) == ("symbi", "symbi", url)
        assert 0 < claims["exp"] - claims["iat"] <= 300
        assert jwt.get_unverified_header(form["client_assertion"][0])["alg"] == algorithm
        assert form["client_assertion_type"] == ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]
        assert (basic, form["grant_type"], form["scope"]) == ("", ["client_credentials"], ["tools"])
        key_lines = [line.encode() for line in pem_of(key).splitlines() if len(line) > 20]
        assert not any(line in one.body for one in heard for line in key_lines)


async def test_a_key_that_is_not_ours_there_is_refused_and_nothing_that_was_signed_is_shown(caplog):
    script = Judges(P256.public_key())
    async with scripted(script) as (url, _):
        server, authority = guarded_server(
            url, by_key, SYMBI_SECRET_OUR_KEY=pem_of(ec.generate_private_key(ec.SECP256R1()))
        )
        async with server:
            with pytest.raises(ToolServerUnavailable, match=r"invalid_client.+Signature verification failed") as caught:
                await connected(server, authority)
    [(_, form)] = script.asked
    said = f"{caught.value}{caplog.text}"
    assert "wants authorisation, which fails" in said
    assert not any(part in said for part in form["client_assertion"][0].split("."))


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        ("swordfish", "no unencrypted private key in PEM"),
        (pem_of(P256, b"swordfish"), "no unencrypted private key in PEM"),
        (pem_of(ed25519.Ed25519PrivateKey.generate()), "of another kind"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "of another kind"),
        (pem_of(rsa.generate_private_key(65537, 1024)), "of another kind"),
    ],
    ids=["none", "encrypted", "Ed25519", "P-384", "RSA of 1024 bits"],
)
async def test_a_key_that_signs_nothing_is_refused_before_anybody_is_asked(pem, message):
    script = Judges(P256.public_key())
    async with scripted(script) as (url, heard):
        server, authority = guarded_server(url, by_key, SYMBI_SECRET_OUR_KEY=pem)
        async with server:
            with pytest.raises(ConfigError, match=message) as caught:
                await connected(server, authority)
        assert heard == []
    said = f"{caught.value}{caught.value.hint}{caught.value.__cause__}{caught.value.__context__}"
    assert not any(line in said for line in pem.splitlines() if len(line) > 20)


async def test_nothing_is_signed_for_whom_the_server_names_instead():
    thief = Judges(P256.public_key())
    async with scripted(thief) as (elsewhere, _):
        async with scripted(Judges(P256.public_key(), elsewhere)) as (url, _):
            server, authority = guarded_server(url, by_key, SYMBI_SECRET_OUR_KEY=pem_of(P256))
            async with server:
                with pytest.raises(ToolServerUnavailable, match="wants authorisation, which fails"):
                    await connected(server, authority)
        assert thief.asked == []


def vouched(issuer, **other):
    """What an identity provider signs of us, for an issuer."""
    now = SystemClock().now_ns() // 1_000_000_000
    claims = {"iss": "https://idp.example", "sub": "ann", "aud": issuer, "iat": now, "exp": now + 300, "jti": "1"}
    return jwt.encode({**claims, **other}, P256, algorithm="ES256", headers={"typ": "oauth-id-jag+jwt"})


def by_identity(url):
    return OAuthTerms(IDENTITY, url, "symbi", "vault://our/secret", assertion="vault://our/assertion")


async def test_what_an_identity_provider_has_signed_of_us_gets_a_token_from_the_issuer():
    thief = Judges(P256.public_key())
    async with scripted(thief) as (elsewhere, stolen):
        script = Judges(P256.public_key(), elsewhere)
        async with scripted(script) as (url, _):
            signed = vouched(url)
            server, authority = guarded_server(url, by_identity, SYMBI_SECRET_OUR_ASSERTION=signed)
            assert server.secret_paths == ("our/assertion", "our/secret")
            async with server:
                assert await connected(server, authority) == []
                assert server._mask.text(f"a {signed} b") == "a vault://our/assertion b"
        [(basic, form)] = script.asked
        assert basic.startswith("Basic ")
        assert (form["assertion"], form["resource"]) == ([signed], [f"{url}/mcp"])
        assert form["grant_type"] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
        assert (thief.asked, stolen) == ([], []), "the server is not asked who gives out its tokens"


@pytest.mark.parametrize(
    ("other", "why"),
    [({"exp": 1}, "Signature has expired"), ({"aud": "https://elsewhere.example/"}, "Audience doesn't match")],
    ids=["expired", "for somebody else"],
)
async def test_what_is_not_signed_for_now_and_here_gets_none(other, why, caplog):
    script = Judges(P256.public_key())
    async with scripted(script) as (url, _):
        signed = vouched(url, **other)
        server, authority = guarded_server(url, by_identity, SYMBI_SECRET_OUR_ASSERTION=signed)
        async with server:
            with pytest.raises(ToolServerUnavailable, match=why) as caught:
                await connected(server, authority)
    assert not any(part in f"{caught.value}{caplog.text}" for part in signed.split("."))


GRANTS = {
    CREDENTIALS: {"client_id": "symbi", "client_secret": "vault://our/secret"},
    KEY: {"client_id": "symbi", "private_key": "vault://our/key"},
    IDENTITY: {"client_id": "symbi", "client_secret": "vault://our/secret", "assertion": "vault://our/assertion"},
    CODE: {"redirect_uri": "http://127.0.0.1:4711/callback"},
}


class Wants(Guarded):
    """One that wants a token of another scope for its listing."""

    async def __call__(self, heard, stream):
        if b"tools/list" in heard.body and not self.wanted:
            self.wanted = True
            challenge = 'Bearer error="insufficient_scope", scope="everything"'
            await say(stream, {}, 403, f"WWW-Authenticate: {challenge}\r\n")
        else:
            await super().__call__(heard, stream)

    wanted = False


@pytest.mark.parametrize(("scope", "asked"), [("tools", {"tools"}), ("", {"everything"})], ids=["ours", "theirs"])
@pytest.mark.parametrize("grant", GRANTS)
async def test_what_the_operator_asks_for_is_asked_for_whatever_the_server_names(grant, scope, asked):
    script, person = Wants(), Agrees()
    async with scripted(script) as (url, heard):
        terms = OAuthTerms(grant, url, scope=scope, **GRANTS[grant])
        server, authority = guarded_server(
            url, terms, SYMBI_SECRET_OUR_KEY=pem_of(P256), SYMBI_SECRET_OUR_ASSERTION=vouched(url)
        )
        server.consent = person
        async with server:
            assert await connected(server, authority) == []
    assert len(script.asked) == 2
    found = [form.get("scope", [""])[0] for _, form in script.asked if grant != CODE]
    found += [parse_qs(page.partition("?")[2])["scope"][0] for page in person.shown]
    found += [json.loads(one.body)["scope"] for one in heard if one.path == "/register"]
    assert set(found) - {""} == asked


class Agrees:
    """A person who agrees at once; the page is not opened."""

    def __init__(self):
        self.shown = []

    async def show(self, url):
        self.shown.append(url)

    async def code(self):
        from mcp.shared.auth import AuthorizationCodeResult  # noqa: PLC0415 - of this class alone

        return AuthorizationCodeResult(code="code-1", state=parse_qs(self.shown[-1].partition("?")[2])["state"][0])


async def test_a_person_who_agrees_is_asked_once():
    script = Guarded()
    async with scripted(script) as (url, _):
        server, authority = guarded_server(url, OAuthTerms(CODE, redirect_uri="http://127.0.0.1:4711/callback"))
        server.consent = person = Agrees()
        async with server:
            await connected(server, authority)
            await connected(server, authority)
        [page] = person.shown
        assert page.startswith(f"{url}/authorize?")
        assert "code_challenge_method=S256" in page
        [(_, form)] = script.asked
        assert (form["code"], form["grant_type"]) == (["code-1"], ["authorization_code"])


async def test_an_answer_with_another_state_is_refused():
    class Forged(Agrees):
        async def code(self):
            found = await super().code()
            return found.model_copy(update={"state": "another"})

    script = Guarded()
    async with scripted(script) as (url, _):
        server, authority = guarded_server(url, OAuthTerms(CODE, redirect_uri="http://127.0.0.1:4711/callback"))
        server.consent = Forged()
        async with server:
            with pytest.raises(ToolServerUnavailable, match="wants authorisation, which fails"):
                await connected(server, authority)
        assert script.asked == []


async def test_the_code_comes_back_to_a_port_of_this_machine(caplog, free_port):
    consent = LoopbackConsent("s", f"http://127.0.0.1:{free_port}/callback")
    await consent.show("https://login.example/authorize?x=1")
    assert "open https://login.example/authorize?x=1" in caplog.text
    results = []

    async def wait():
        results.append(await consent.code())

    async with anyio.create_task_group() as tasks, httpx2.AsyncClient() as browser:
        tasks.start_soon(wait)
        statuses = []
        for path in ("favicon.ico", "callback", "callback?error=no", "callback?code=c&state=s&iss=i"):
            response = None
            while response is None:
                try:
                    response = await browser.get(f"http://127.0.0.1:{free_port}/{path}")
                except httpx2.ConnectError:
                    await anyio.lowlevel.checkpoint()  # it is not listening yet
            statuses.append(response.status_code)
    assert statuses == [404, 404, 404, 200]
    [found] = results
    assert (found.code, found.state, found.iss) == ("c", "s", "i")


async def test_nobody_who_agrees_is_an_end(monkeypatch, free_port):
    monkeypatch.setattr("symbi.adapters.mcp.oauth.LOGIN_S", 0.05)
    with pytest.raises(OAuthFlowError, match="nobody agreed"):
        await LoopbackConsent("s", f"http://127.0.0.1:{free_port}/callback").code()


@pytest.mark.parametrize(
    "terms",
    [
        OAuthTerms(CREDENTIALS, "", "symbi", "vault://our/secret"),
        OAuthTerms(CREDENTIALS, "https://login.example"),
        OAuthTerms(KEY, "https://login.example", "symbi"),
        OAuthTerms(IDENTITY, "https://login.example", "symbi"),
        OAuthTerms(CODE),
        OAuthTerms("password"),
    ],
)
def test_terms_that_do_not_fit_are_refused(terms):
    with pytest.raises(ConfigError):
        provider("https://tools.example/mcp", terms, OAuthSecrets(), MemoryTokens(lambda _: None), Agrees())


@pytest.mark.parametrize("uri", ["https://127.0.0.1:1/", "http://tools.example:1/", "http://127.0.0.1/callback"])
def test_the_code_comes_back_nowhere_else(uri):
    with pytest.raises(ConfigError, match="cannot come back"):
        LoopbackConsent("s", uri)
