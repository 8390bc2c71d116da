"""Names of the gateway, and the pages that may ask it."""

from pathlib import Path

import pytest

from symbi.config.door_kinds import HostName, PageOrigin
from symbi.config.kinds import BadValue


@pytest.mark.parametrize("text", ["localhost", "0.0.0.0", "::1", "tools.example.com", "xn--bcher-kva.example", "a"])
def test_a_name_or_address_is_read(text):
    assert HostName().from_toml(text, Path()) == text


@pytest.mark.parametrize(
    "text", ["", "a:80", "a/b", "-a", "a-", "a b", "a\n", "*", "?", "é", "a" * 254, 1, None, ["a"]]
)
def test_what_is_no_name_is_refused(text):
    with pytest.raises(BadValue):
        HostName().from_toml(text, Path())


@pytest.mark.parametrize("text", ["https://chat.example.org", "http://localhost:3000", "https://[::1]:8443"])
def test_an_origin_is_read(text):
    assert PageOrigin().from_toml(text, Path()) == text


@pytest.mark.parametrize(
    "text",
    ["", "null", "*", "https://", "https://a/", "https://a/b", "https://a?b", "https://u@a", "ftp://a", "a", "https://a:0",
     "https://a:x", "https://*.a", "https://a b", 1, None],
)  # fmt: skip
def test_what_is_no_origin_is_refused(text):
    with pytest.raises(BadValue):
        PageOrigin().from_toml(text, Path())
