"""How an engine is spoken to, by settings and environment."""

from pathlib import Path

import pytest

from symbi.errors import ConfigError
from symbi.sandbox.address import EngineAddress, engine_address

TLS = {"DOCKER_TLS_VERIFY": "1", "HOME": "/home/ada"}


@pytest.mark.parametrize(
    ("url", "environ", "more", "found"),
    [
        (None, {}, {}, EngineAddress("unix:///var/run/docker.sock")),
        (None, {"DOCKER_HOST": " unix:///d.sock "}, {}, EngineAddress("unix:///d.sock")),
        ("unix:///s.sock", {"DOCKER_HOST": "tcp://h"}, {}, EngineAddress("unix:///s.sock")),
        ("unix:///s.sock", TLS, {}, EngineAddress("unix:///s.sock")),
        ("tcp://127.0.0.1:2375", {}, {}, EngineAddress("tcp://127.0.0.1:2375")),
        ("tcp://[::1]", {}, {}, EngineAddress("tcp://[::1]")),
        ("tcp://localhost", {"DOCKER_TLS_VERIFY": " "}, {}, EngineAddress("tcp://localhost")),
        ("tcp://h", {}, {"plain": True}, EngineAddress("tcp://h")),
        ("tcp://h", TLS, {}, EngineAddress("tcp://h", Path("/home/ada/.docker"))),
        ("tcp://127.0.0.1", {"DOCKER_TLS_VERIFY": "0"}, {}, EngineAddress("tcp://127.0.0.1", Path("/.docker"))),
        ("tcp://h", TLS | {"DOCKER_CERT_PATH": "/c"}, {}, EngineAddress("tcp://h", Path("/c"))),
        ("tcp://h", TLS | {"DOCKER_CONFIG": "/d"}, {}, EngineAddress("tcp://h", Path("/d"))),
        (
            "tcp://h",
            TLS | {"DOCKER_CERT_PATH": "/c"},
            {"certificates": Path("/e")},
            EngineAddress("tcp://h", Path("/e")),
        ),
        ("tcp://h", {}, {"tls_verify": True, "certificates": Path("/e")}, EngineAddress("tcp://h", Path("/e"))),
        ("https://h", {"DOCKER_CERT_PATH": "/c"}, {}, EngineAddress("https://h", Path("/c"))),
        ("ssh://h", {}, {}, EngineAddress("ssh://h")),
    ],
)
def test_an_engine_is_spoken_to_as_settings_or_else_the_environment_say(url, environ, more, found):
    assert engine_address(url, environ, **more) == found


@pytest.mark.parametrize(
    ("url", "environ", "more"),
    [
        ("tcp://192.0.2.1:2375", {}, {}),
        ("tcp://10.0.0.1", {"DOCKER_CERT_PATH": "/c"}, {}),
        (None, {"DOCKER_HOST": "tcp://docker.example"}, {}),
        ("http://h", {}, {}),
        ("tcp://h", TLS, {"tls_verify": False}),
        ("tcp://0.0.0.0", {}, {}),
        ("tcp://localhost.example", {}, {}),
        ("tcp://127.0.0.1.example", {}, {}),
    ],
)
def test_an_engine_on_another_machine_is_not_spoken_to_without_tls(url, environ, more):
    with pytest.raises(ConfigError, match="without TLS") as caught:
        engine_address(url, environ, **more)
    assert caught.value.code == "config.unsafe"


@pytest.mark.parametrize(
    ("url", "environ", "more"),
    [
        ("tcp://127.0.0.1:2376", {}, {}),
        ("tcp://127.0.0.1:2376", TLS, {"tls_verify": False}),
        ("tcp://h", {}, {"plain": True}),
        ("tcp://h", {}, {}),
        (None, {"DOCKER_HOST": "tcp://localhost"}, {}),
    ],
)
def test_certificates_that_are_configured_are_not_left_out_without_a_word(url, environ, more):
    with pytest.raises(ConfigError, match="without TLS") as caught:
        engine_address(url, environ, certificates=Path("/e"), **more)
    assert caught.value.code == "config.engine_certificates"
    assert "docker_tls_verify" in caught.value.hint


def test_certificates_of_the_environment_alone_ask_for_nothing_as_the_docker_client_has_it():
    assert engine_address("tcp://localhost", {"DOCKER_CERT_PATH": "/c"}) == EngineAddress("tcp://localhost")


@pytest.mark.parametrize("url", ["tcp://[", "tcp://h:99999999"])
def test_what_is_no_address_is_said(url):
    with pytest.raises(ConfigError, match="no address"):
        engine_address(url, {})


def test_the_port_is_the_usual_one_of_how_it_is_spoken_to():
    assert [
        EngineAddress("tcp://h").port,
        EngineAddress("tcp://h", Path("/c")).port,
        EngineAddress("tcp://h:1").port,
    ] == [2375, 2376, 1]
