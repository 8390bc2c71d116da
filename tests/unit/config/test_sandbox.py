"""What `[sandbox]` takes: images by digest alone, users that are not root, addresses of engines."""

from pathlib import Path

import pytest

from symbi.config.kinds import BadValue
from symbi.config.sandbox_settings import EngineAddress, Image, UserNumbers, VariableName

DIGEST = "sha256:" + 64 * "0"


@pytest.mark.parametrize("value", [DIGEST, f"python@{DIGEST}", f"reg.example:5000/a/b:3.12@{DIGEST}"])
def test_an_image_is_named_by_digest(value):
    assert Image().from_toml(value, Path()) == value


@pytest.mark.parametrize(
    "value",
    ["python:3.12", "python", "", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), f"../x@{DIGEST}", f"a b@{DIGEST}", 7, f"{DIGEST}\n"],
)  # fmt: skip
def test_an_image_that_may_be_another_one_tomorrow_is_refused(value):
    with pytest.raises(BadValue):
        Image().from_toml(value, Path())


@pytest.mark.parametrize(
    "value", ["PATH", "HOME", "https_proxy", "LD_PRELOAD", "LD_x", "1X", "a b", "A=B", "", 7, "É", "X\n"]
)
def test_a_variable_that_is_ours_or_the_loader_s_is_nobody_s_to_set(value):
    with pytest.raises(BadValue):
        VariableName().from_toml(value, Path())
    assert VariableName().from_toml("MODE", Path()) == "MODE"


@pytest.mark.parametrize(
    "value", ["0:1", "1:0", "0:0", "root", "1", "1:2:3", "-1:1", "1:99999999999", "1:2147483648", "", 1]
)
def test_code_never_runs_as_root(value):
    with pytest.raises(BadValue):
        UserNumbers().from_toml(value, Path())


@pytest.mark.parametrize(
    "value", ["unix://", "unix://host/x", "tcp://", "http://h", "ssh://h", "npipe:////./pipe/x", "tcp://u:p@h"]
)
def test_an_address_that_names_no_engine_is_refused(value):
    with pytest.raises(BadValue):
        EngineAddress().from_toml(value, Path())
