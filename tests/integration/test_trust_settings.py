"""From `[schemapin]` and `schemapin_domain` to tools that may be called: folder, bundles, the domain itself, and what is wrong
with them."""

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from symbi.api.caller import Caller, operate
from symbi.api.control import OPERATIONS
from symbi.cli.main import app
from symbi.errors import ConfigError, InputError, PinMismatch
from symbi.testing.domains import WebAuthority, naming, reply, serving
from symbi.testing.runtime import open_in
from symbi.testing.servers import in_place_of
from symbi.testing.signed import HOST, KEY, OTHER, SEND, document, revocations, signed
from symbi.testing.tool_servers import suite_tools
from symbi.tools.catalog import SYSTEM
from symbi.tools.schemapin import key_id, public_pem
from symbi.tools.schemapin.bundle import sign_bundle
from symbi.tools.schemapin.documents import WELL_KNOWN

AGENT = 'agent idle() { with { "done" } }'
SERVER = f"""
[mcp.servers.mail]
command = ["mail"]
schemapin_domain = "{HOST}"
"""
AUTHORITY = ec.derive_private_key(0xA0, ec.SECP256R1())
LISTED = {"name": SEND.name, "description": SEND.description, "inputSchema": SEND.input_schema}
ALLOW = '@id("all") permit (principal, action, resource);'


def bundle(folder, key=KEY, authority=AUTHORITY, *, name="bundle.json", expires_at=None, kid="acme"):
    content = {"documents": [json.loads(document(key)) | {"domain": HOST}], "revocations": []}
    signed_one = sign_bundle(content, authority, kid, "2026-01-01T00:00:00Z", expires_at)
    (folder / name).write_text(json.dumps(signed_one))
    (folder / "authority.pem").write_text(public_pem(AUTHORITY.public_key()))


async def connected(folder, config, *, offered=None):
    """State by tool after the server was connected once: empty, or the code of the refusal."""
    _, answer = suite_tools()[0]
    with in_place_of({"mail": [(offered or signed(SEND), answer)]}):
        async with open_in(folder, AGENT, config=config, policies=ALLOW) as opened:
            catalog = opened.runtime.catalog
            await opened.runtime.connect(["mail"], SYSTEM)
            refused = {name: error.fields.get("cause", error.code) for name, error in catalog.quarantined.items()}
            return {ref.name: "" for ref in catalog.refs} | refused, catalog.verifier.trust_of("mail")


@pytest.mark.anyio
async def test_a_folder_of_documents_is_as_good_as_a_key_in_a_file(tmp_path):
    trust = tmp_path / "trust"
    trust.mkdir()
    config = SERVER + '\n[schemapin]\nfolder = "trust"\nonline = false\n'
    found, _ = await connected(tmp_path, config)
    assert found == {"mail.send": "unavailable.discovery"}
    (trust / f"{HOST}.json").write_bytes(document())
    found, known = await connected(tmp_path, config)
    assert (found, known.source) == ({"mail.send": ""}, "folder:trust")
    (trust / f"{HOST}.revocations.json").write_bytes(revocations(KEY))
    found, _ = await connected(tmp_path, config)
    assert found == {"mail.send": "verify.revoked"}


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["the folder is gone", "a link leads nowhere"])
async def test_revocations_that_are_out_of_sight_are_an_error_and_not_none(tmp_path, how):
    trust = tmp_path / "trust"
    trust.mkdir()
    bundle(tmp_path)
    config = (
        SERVER + '\n[schemapin]\nbundles = ["bundle.json"]\nauthorities = ["authority.pem"]\n'
        'folder = "trust"\nonline = false\n'
    )
    assert (await connected(tmp_path, config))[0] == {"mail.send": ""}
    if how == "the folder is gone":
        trust.rmdir()
    else:
        (trust / f"{HOST}.revocations.json").symlink_to(tmp_path / "unmounted" / "revocations.json")
    assert (await connected(tmp_path, config))[0] == {"mail.send": "unavailable.discovery"}


@pytest.mark.anyio
async def test_a_signed_bundle_is_taken_and_others_are_not(tmp_path):
    config = SERVER + '\n[schemapin]\nbundles = ["bundle.json"]\nauthorities = ["authority.pem"]\nonline = false\n'
    bundle(tmp_path)
    found, known = await connected(tmp_path, config)
    assert (found, known.source, known.remote) == ({"mail.send": ""}, "bundle:acme", False)
    bundle(tmp_path, authority=OTHER)
    assert (await connected(tmp_path, config))[0] == {"mail.send": "verify.bundle_authority"}
    bundle(tmp_path, expires_at="2026-01-02T00:00:00Z")
    assert (await connected(tmp_path, config))[0] == {"mail.send": "verify.bundle_expired"}
    content = json.loads((tmp_path / "bundle.json").read_text())
    (tmp_path / "bundle.json").write_text(json.dumps({name: content[name] for name in content if name != "signature"}))
    assert (await connected(tmp_path, config))[0] == {"mail.send": "verify.bundle_unsigned"}
    trusted = SERVER + '\n[schemapin]\nunsigned_bundles = ["bundle.json"]\nonline = false\n'
    assert (await connected(tmp_path, trusted))[0] == {"mail.send": "verify.bundle_expired"}
    del content["expires_at"], content["signature"]
    (tmp_path / "bundle.json").write_text(json.dumps(content))
    assert (await connected(tmp_path, trusted))[0] == {"mail.send": ""}


@pytest.mark.anyio
async def test_the_first_source_that_knows_a_domain_says_its_key(tmp_path):
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / f"{HOST}.json").write_bytes(document(OTHER))
    bundle(tmp_path)
    config = (
        SERVER + '\n[schemapin]\nbundles = ["bundle.json"]\nauthorities = ["authority.pem"]\n'
        'folder = "trust"\nonline = false\n'
    )
    found, known = await connected(tmp_path, config)
    assert (found, known.source) == ({"mail.send": ""}, "bundle:acme")


@pytest.mark.anyio
async def test_a_file_that_is_no_bundle_or_key_is_said_before_anything_starts(tmp_path):
    (tmp_path / "bundle.json").write_text("{}")
    for keys, error in (('bundles = ["bundle.json"]', InputError), ('authorities = ["none.pem"]', InputError)):
        with pytest.raises(error):
            await connected(tmp_path, f"{SERVER}\n[schemapin]\n{keys}\nonline = false\n")
    with pytest.raises(ConfigError):
        await connected(tmp_path, f'{SERVER}\n[schemapin]\nca_file = "bundle.json"\n')


@pytest.mark.anyio
async def test_a_domain_is_asked_itself_and_dns_has_its_say(tmp_path, monkeypatch):
    async def here(_host):
        return ["127.0.0.1"]

    monkeypatch.setattr("symbi.adapters.schemapin.fetch._addresses", here)
    authority = WebAuthority(tmp_path)
    records = {f"_schemapin.{HOST}": [[f"v=schemapin1; fp={key_id(KEY.public_key())}"]]}
    async with serving(authority.server_context(HOST)) as web, naming(records) as port:
        web.pages[WELL_KNOWN] = reply(document())
        server = SERVER.replace(f'"{HOST}"', f'"{HOST}:{web.port}"')
        trusting = f'\n[schemapin]\nca_file = "ca.pem"\ndns = "required"\ndns_servers = ["127.0.0.1:{port}"]\n'
        found, _ = await connected(tmp_path, server + trusting)
        assert found == {"mail.send": "discovery.address"}
        assert web.asked == []
        trusting += f'private_hosts = ["{HOST}"]\n'
        found, known = await connected(tmp_path, server + trusting)
        assert (found, known.remote, known.dns) == ({"mail.send": "verify.consent"}, True, True)
        assert known.developer == "Example"
        tofu = '[mcp]\ntool_verification = "tofu"\n'
        assert (await connected(tmp_path, tofu + server + trusting))[0] == {"mail.send": ""}
        records.clear()
        assert (await connected(tmp_path, tofu + server + trusting))[0] == {"mail.send": "verify.dns"}


@pytest.mark.anyio
async def test_an_operator_signs_the_tools_of_a_server_that_sends_no_signatures_along(tmp_path):
    (tmp_path / "own.pub").write_text(public_pem(KEY.public_key()))
    server = '[mcp.servers.mail]\ncommand = ["mail"]\npublic_key = "own.pub"\n'
    unsigned = replace(SEND, meta={})
    assert (await connected(tmp_path, server, offered=unsigned))[0] == {"mail.send": "verify.signature"}
    kept = server + 'signatures = "mail.json"\n'
    entry = signed(SEND).meta["schemapin"]
    for content in (
        {"send": entry["signature"]},
        {"send": entry},
        {"tools": [LISTED | {"_meta": {"schemapin": entry}}]},
    ):
        (tmp_path / "mail.json").write_text(json.dumps(content))
        assert (await connected(tmp_path, kept, offered=unsigned))[0] == {"mail.send": ""}
        assert (await connected(tmp_path, kept, offered=signed(SEND, OTHER)))[0] == {"mail.send": ""}  # not heard
        changed = replace(unsigned, description="Sends a mail, and reads yours.")
        assert (await connected(tmp_path, kept, offered=changed))[0] == {"mail.send": "verify.signature"}
    for content in ("7", "[]]", '{"send": 7}', '{"send": {}}'):
        (tmp_path / "mail.json").write_text(content)
        with pytest.raises(InputError):
            await connected(tmp_path, kept)


def test_the_key_of_a_server_is_shown_before_anybody_accepts_it(tmp_path):
    (tmp_path / "trust").mkdir()
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "operator.cedar").write_text(ALLOW)
    config = tmp_path / "symbi.toml"
    config.write_text(SERVER + '\n[schemapin]\nfolder = "trust"\nonline = false\n')
    _, answer = suite_tools()[0]
    shown = []
    with in_place_of({"mail": [(signed(SEND), answer)]}):
        for name, body in (("json", None), ("json", document()), ("revocations.json", revocations(KEY))):
            if body is not None:
                (tmp_path / "trust" / f"{HOST}.{name}").write_bytes(body)
            result = CliRunner().invoke(app, ["tools", "key", "mail", "--json", "--config", str(config)])
            assert result.exit_code == 0, result.output
            shown += json.loads(result.stdout)
        words = CliRunner().invoke(app, ["tools", "key", "--config", str(config)])
    assert "no source knows" in shown[0]["error"]
    assert (shown[1]["key"], shown[1]["developer"]) == (key_id(KEY.public_key()), "Example")
    assert (shown[1]["source"], shown[1]["error"]) == ("folder:trust", "")
    assert "key_compromise" in shown[2]["error"]
    assert "key_compromise" in words.stdout


def test_what_a_bundle_calls_its_key_is_shown_as_it_is(tmp_path):
    bundle(tmp_path, kid="[/red] acme")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "operator.cedar").write_text(ALLOW)
    config = tmp_path / "symbi.toml"
    config.write_text(
        SERVER + '\n[schemapin]\nbundles = ["bundle.json"]\nauthorities = ["authority.pem"]\nonline = false\n'
    )
    _, answer = suite_tools()[0]
    with in_place_of({"mail": [(signed(SEND), answer)]}):
        found = CliRunner().invoke(app, ["tools", "key", "--config", str(config)])
    assert found.exit_code == 0, found.output
    assert "from bundle:[/red] acme" in found.stdout


def test_a_server_that_cannot_be_connected_hides_no_key_of_another(tmp_path):
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / f"{HOST}.json").write_bytes(document())
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "operator.cedar").write_text(
        ALLOW
        + '\n@id("not-this") forbid (principal, action == Action::"ConnectServer", resource == ToolServer::"broken");'
    )
    config = tmp_path / "symbi.toml"
    config.write_text(
        '[mcp.servers.broken]\ncommand = ["broken"]\n' + SERVER
        + '\n[schemapin]\nfolder = "trust"\nonline = false\n'
    )  # fmt: skip
    _, answer = suite_tools()[0]
    with in_place_of({"mail": [(signed(SEND), answer)], "broken": []}):
        found = CliRunner().invoke(app, ["tools", "key", "--json", "--config", str(config)])
        words = CliRunner().invoke(app, ["tools", "key", "--config", str(config)])
        nobody = CliRunner().invoke(app, ["tools", "key", "nobody", "--config", str(config)])
    rows = json.loads(found.stdout)
    assert [(row["server"], row["key"], bool(row["error"])) for row in rows] == [
        ("broken", "", True), ("mail", key_id(KEY.public_key()), False),
    ]  # fmt: skip
    assert (found.exit_code, words.exit_code, nobody.exit_code) == (3, 3, 2)
    assert key_id(KEY.public_key()) in words.stdout
    assert "not-this" in words.stdout


def test_where_no_server_is_configured_it_is_said(tmp_path):
    config = tmp_path / "symbi.toml"
    config.write_text("")
    for command, words in (("verify", "no configured server offers one"), ("key", "no tool server is configured")):
        found = CliRunner().invoke(app, ["tools", command, "--config", str(config)])
        assert (found.exit_code, words in found.stdout) == (0, True), found.output


@pytest.mark.anyio
async def test_an_older_version_is_accepted_by_a_runtime_that_is_alive_if_it_is_said_to_be_meant(tmp_path):
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / f"{HOST}.json").write_bytes(document())
    _, answer = suite_tools()[0]
    newer = signed(SEND, schema_version="2.0.0")
    older = signed(replace(SEND, description="Sent mail."), schema_version="1.0.0")
    config, caller = SERVER + '\n[schemapin]\nfolder = "trust"\nonline = false\n', Caller(0, folder_owner=True)
    assert (await connected(tmp_path, config, offered=newer))[0] == {"mail.send": ""}
    with in_place_of({"mail": [(older, answer)]}):
        async with open_in(tmp_path, AGENT, config=config, policies=ALLOW) as opened:
            await opened.runtime.connect(["mail"], SYSTEM)
            seen = {"tool": "mail.send", "digest": opened.runtime.catalog.quarantined["mail.send"].fields["seen"]}
            with pytest.raises(PinMismatch, match="would go back"):
                await operate(opened.runtime, OPERATIONS, caller, "tools.accept", seen)
            await operate(opened.runtime, OPERATIONS, caller, "tools.accept", seen | {"older": True})
            assert [ref.name for ref in opened.runtime.catalog.refs] == ["mail.send"]
