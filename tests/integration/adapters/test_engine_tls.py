"""An engine behind TLS: both sides show certificates that the other checks, and nothing is said to one that shows another."""

import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import anyio
import pytest
from anyio.streams.tls import TLSListener
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.integration.adapters.test_docker_faults import OPTIONS, FakeEngine

from symbi.adapters.docker import DockerSandbox, Engine
from symbi.adapters.machine import Wanted, probe_engine
from symbi.errors import ConfigError, SandboxUnavailable
from symbi.guard.permit import Authority
from symbi.sandbox.address import EngineAddress, engine_address
from symbi.testing.clock import ManualClock
from symbi.testing.contracts import SandboxUnderTest
from symbi.types import SecurityTier
from symbi.wiring.sandboxes import engine_of

pytestmark = pytest.mark.anyio


class Authorities:
    """Makes certificates, signed by one key, into folders of the form that the docker client knows."""

    def __init__(self, folder, name="ca"):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self.name, self.key, [(x509.BasicConstraints(ca=True, path_length=0), True)])

    def folder_for(self, who, *, address="127.0.0.1", client=False, trusts=None):
        """`ca.pem`, `cert.pem` and `key.pem` of somebody."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        extensions = [
            (x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), False),
            (x509.ExtendedKeyUsage([usage]), False),
        ]
        made = self._signed(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]), key, extensions)
        folder = self.folder / who
        folder.mkdir()
        pem = serialization.Encoding.PEM
        (folder / "ca.pem").write_bytes((trusts or self).certificate.public_bytes(pem))
        (folder / "cert.pem").write_bytes(made.public_bytes(pem))
        (folder / "key.pem").write_bytes(
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return folder

    def _signed(self, subject, key, extensions):
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA256())


class Brief(FakeEngine):
    """Hangs up after each answer, as an engine does to one who asks by HTTP/1.0."""

    async def _serve(self, line):
        async with line:
            await self._one(line)


@asynccontextmanager
async def serving(folder, kind=FakeEngine):
    """An engine that takes those whom its authority has signed; with its address."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    fake = kind("")
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as plain:
        port = plain.extra(anyio.abc.SocketAttribute.local_port)
        listener = TLSListener(plain.listeners[0], context, standard_compatible=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, fake._serve)
            yield fake, f"tcp://127.0.0.1:{port}"
            tasks.cancel_scope.cancel()


def address(url, folder):
    return engine_address(url, {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(folder)})


async def test_code_runs_on_an_engine_behind_tls(tmp_path):
    ours = Authorities(tmp_path)
    async with serving(ours.folder_for("server")) as (fake, url):
        found = address(url, ours.folder_for("client", client=True))
        authority = Authority(ManualClock())
        async with (
            Engine(found.url, found.context()) as engine,
            DockerSandbox(authority, SecurityTier.TIER1, engine, OPTIONS) as made,
        ):
            result = await SandboxUnderTest(made, authority).run("1 + 2")
    assert (result.value, result.stdout) == (3, "hi\n")
    assert any("/attach" in asked for asked in fake.asked)
    assert fake.containers == set()


@pytest.mark.parametrize("wrong", ["server of another", "server of another name", "client of another", "plain"])
async def test_nothing_is_said_to_an_engine_that_is_another_nor_taken_from_one_who_is_not_known(tmp_path, wrong):
    (tmp_path / "b").mkdir()
    ours, theirs = Authorities(tmp_path), Authorities(tmp_path / "b", "others")
    server = ours.folder_for("server", address="127.0.0.2" if wrong == "server of another name" else "127.0.0.1")
    client = ours.folder_for("client", client=True)
    if wrong == "server of another":
        server = theirs.folder_for("server", trusts=ours)
    if wrong == "client of another":
        client = theirs.folder_for("client", client=True, trusts=ours)
    async with serving(server) as (fake, url):
        found = EngineAddress(url) if wrong == "plain" else address(url, client)
        async with Engine(found.url, found.context()) as engine:
            with anyio.fail_after(20), pytest.raises(SandboxUnavailable) as caught:
                await engine.version()
    assert caught.value.code == "unavailable.engine"
    assert fake.asked == []


async def test_doctor_asks_an_engine_behind_tls(tmp_path):
    ours = Authorities(tmp_path)
    client = ours.folder_for("client", client=True)
    async with serving(ours.folder_for("server"), Brief) as (_, url):
        wanted = Wanted(url, tls_verify=True, certificates=client)
        docker, *_ = await anyio.to_thread.run_sync(lambda: list(probe_engine({}, lambda _: None, wanted)))
        assert "20.10" in docker.detail
        wanted = Wanted(url)
        docker, *_ = await anyio.to_thread.run_sync(lambda: list(probe_engine({}, lambda _: None, wanted)))
        assert "20.10" not in docker.detail


@pytest.mark.parametrize("lacking", ["ca.pem", "cert.pem", "key.pem", None])
def test_certificates_that_are_not_there_or_are_none_are_said(tmp_path, lacking):
    folder = Authorities(tmp_path).folder_for("client", client=True)
    if lacking:
        (folder / lacking).unlink()
    else:
        (folder / "key.pem").write_text("no key")
    with pytest.raises(ConfigError) as caught:
        address("tcp://192.0.2.1", folder).context()
    assert caught.value.code == "config.engine_certificates"
    assert (lacking or "SSLError") in caught.value.message


def test_a_key_under_a_password_is_said_and_nobody_is_asked_for_it(tmp_path):
    folder = Authorities(tmp_path).folder_for("client", client=True)
    key = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigError, match=r"key\.pem is encrypted") as caught:
        address("tcp://192.0.2.1", folder).context()
    assert caught.value.code == "config.engine_certificates"


def test_the_engine_of_a_configuration_is_spoken_to_as_it_says(tmp_path):
    folder = Authorities(tmp_path).folder_for("client", client=True)
    from symbi.config import load_settings  # noqa: PLC0415

    file = tmp_path / "symbi.toml"
    text = f'[sandbox]\ndocker_host = "tcp://192.0.2.1"\ndocker_tls_verify = true\ndocker_cert_path = "{folder}"\n'
    file.write_text(text)
    engine = engine_of(load_settings(file), {})
    assert str(engine._client.base_url) == "https://192.0.2.1:2376"
    file.write_text('[sandbox]\ndocker_host = "tcp://192.0.2.1"\n')
    with pytest.raises(ConfigError, match="without TLS"):
        engine_of(load_settings(file), {})
    file.write_text('[sandbox]\ndocker_host = "tcp://192.0.2.1"\ndocker_plain_tcp = true\n')
    assert str(engine_of(load_settings(file), {})._client.base_url) == "http://192.0.2.1:2375"
