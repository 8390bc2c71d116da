"""Secrets in, and out of sight."""

import base64
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.errors import InputError, LimitExceeded, Overloaded, ToolFailed
from symbi.tools.mask import MAX_SECRETS, SecretMask, put_in, references

SECRET = 'p"ss wörd/1+2'


def test_every_shape_of_a_secret_is_replaced():
    mask = SecretMask({"a/b": SECRET})
    for shape in (
        SECRET,
        json.dumps(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        quote(SECRET),
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ):
        masked = mask.text(f"before {shape} after")
        assert "vault://a/b" in masked
        assert shape.strip('"') not in masked
        assert masked.startswith("before ")
        assert masked.endswith(" after")


def test_each_line_of_a_long_secret_is_replaced():
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
    mask = SecretMask({"key": key})
    assert mask.text("line 2 is hkiG9w0BAQEFAASC.") == "line 2 is vault://key."


def test_a_secret_is_found_in_keys_numbers_and_depth():
    mask = SecretMask({"pin": "12345678", "t": "token-value"})
    value = {"token-value": [12345678, {"deep": "is token-value"}, 1234, None, True, 3.5]}
    assert mask.value(value) == {"vault://t": ["vault://pin", {"deep": "is vault://t"}, 1234, None, True, 3.5]}


def test_the_longer_of_two_secrets_goes_first():
    mask = SecretMask({"short": "abcd", "long": "abcdefgh"})
    assert mask.text("abcdefgh abcd") == "vault://long vault://short"


def test_secrets_that_were_told_earlier_are_looked_for_too():
    mask = SecretMask({"a": "first-secret"})
    mask.add({"b": "second-secret"})
    mask.add({"a": "rotated-secret"})
    assert mask.text("first-secret second-secret rotated-secret") == "vault://a vault://b vault://a"


def test_an_error_is_copied_without_secrets_and_without_causes():
    mask = SecretMask({"a": "the-secret"})
    original = ToolFailed("got the-secret", hint="not the-secret", token="the-secret", code="agent.x")
    original.__cause__ = original.__context__ = ValueError("the-secret")
    copy = mask.error(original)
    assert type(copy) is ToolFailed
    assert (str(copy), copy.code, copy.fields) == ("got vault://a; not vault://a", "agent.x", {"token": "vault://a"})
    assert copy.__cause__ is None
    assert copy.__context__ is None
    assert mask.error(Overloaded("busy", retry_after_s=2.0)).retry_after_s == 2.0


@pytest.mark.parametrize("value", ["", "abc", "\ud800secret"])
def test_a_value_that_cannot_be_hidden_is_refused(value):
    with pytest.raises(InputError):
        SecretMask({"a": value})


def test_secrets_are_bounded_in_number():
    mask = SecretMask({f"p{n}": f"secret-{n}" for n in range(MAX_SECRETS)})
    mask.add({"p0": "secret-0"})
    with pytest.raises(LimitExceeded):
        mask.add({"one": "too-many"})


def test_only_a_whole_text_that_is_listed_is_replaced_on_the_way_in():
    secrets = {"a/b": "value"}
    arguments = {
        "one": "vault://a/b",
        "list": ["vault://a/b", "vault://other", "see vault://a/b", "a/b"],
        "vault://a/b": 1,
    }
    assert put_in(arguments, secrets) == {
        "one": "value",
        "list": ["value", "vault://other", "see vault://a/b", "a/b"],
        "vault://a/b": 1,
    }
    assert sorted(references(arguments)) == ["a/b", "a/b", "other"]


@given(st.text(min_size=4, max_size=30), st.text(max_size=40), st.text(max_size=40))
def test_a_secret_never_comes_through(secret, before, after):
    mask = SecretMask({"x": secret})
    masked = mask.text(before + secret + after)
    assert secret not in masked or secret in "vault://x" or secret in before + "vault://x" + after
