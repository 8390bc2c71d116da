"""The configuration file itself: found, named, unreadable, foreign, damaged."""

import os
from pathlib import Path

import pytest

from symbi.config import OriginKind, find_config, load_settings
from symbi.errors import ConfigError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app" / "deep").mkdir(parents=True)
    return tmp_path / "app"


def test_without_a_file_the_defaults_hold(folder):
    settings = load_settings(environ={}, cwd=folder)
    assert settings.file is None
    assert settings.runtime.data_dir == folder / ".symbi"


def test_the_nearest_file_above_is_found(folder):
    (folder / "symbi.toml").write_text("[limits]\nsteps = 7")
    settings = load_settings(environ={}, cwd=folder / "deep")
    assert settings.file == folder / "symbi.toml"
    assert settings.limits.steps == 7
    assert settings.runtime.data_dir == folder / ".symbi"
    (folder / "deep" / "symbi.toml").write_text("[limits]\nsteps = 8")
    assert load_settings(environ={}, cwd=folder / "deep").limits.steps == 8


def test_the_command_line_names_the_file_before_the_variable_before_the_search(folder):
    for name, steps in (("symbi.toml", 1), ("env.toml", 2), ("cli.toml", 3)):
        (folder / name).write_text(f"[limits]\nsteps = {steps}")
    environ = {"SYMBI_CONFIG_PATH": "env.toml"}
    assert load_settings(environ={}, cwd=folder).limits.steps == 1
    by_variable = load_settings(environ=environ, cwd=folder)
    assert by_variable.limits.steps == 2
    assert by_variable.origin("limits.steps").where == "env.toml:2"
    assert load_settings(Path("cli.toml"), environ=environ, cwd=folder).limits.steps == 3


def test_the_processs_own_environment_and_folder_are_the_default(folder, monkeypatch):
    for name in [name for name in os.environ if name.startswith("SYMBI_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SYMBI_LIMITS_STEPS", "9")
    settings = load_settings()
    assert settings.limits.steps == 9
    assert settings.folder == folder
    assert settings.origin("limits.steps").kind is OriginKind.ENV


def test_a_named_file_that_is_not_there_is_an_error(folder):
    with pytest.raises(ConfigError, match=r"cannot read the configuration file .*missing.toml`: no such file"):
        load_settings(Path("missing.toml"), environ={}, cwd=folder)
    with pytest.raises(ConfigError, match="no such file"):
        load_settings(environ={"SYMBI_CONFIG_PATH": "missing.toml"}, cwd=folder)
    with pytest.raises(ConfigError, match="`SYMBI_CONFIG_PATH` is empty"):
        load_settings(environ={"SYMBI_CONFIG_PATH": ""}, cwd=folder)


def test_a_folder_in_the_place_of_the_file_is_an_error(folder):
    with pytest.raises(ConfigError, match="is a directory"):
        load_settings(Path("deep"), environ={}, cwd=folder)


def test_a_file_that_is_too_large_or_not_text_is_an_error(folder):
    file = folder / "symbi.toml"
    file.write_bytes(b"#" * (1_048_576 + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load_settings(environ={}, cwd=folder)
    file.write_bytes(b"[runtime]\n# \xff\n")
    with pytest.raises(ConfigError, match=r"symbi\.toml:2:1: not valid UTF-8"):
        load_settings(environ={}, cwd=folder)


def test_a_byte_order_mark_is_accepted(folder):
    (folder / "symbi.toml").write_bytes(b"\xef\xbb\xbf[limits]\nsteps = 3\n")
    settings = load_settings(environ={}, cwd=folder)
    assert (settings.limits.steps, settings.origin("limits.steps").where) == (3, "symbi.toml:2")


def test_a_file_of_another_user_is_not_picked_up_but_may_be_named(folder, monkeypatch):
    (folder / "symbi.toml").write_text("[limits]\nsteps = 3")
    if os.geteuid() == 0:
        os.chown(folder / "symbi.toml", 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="belongs to another user; name it with --config"):
        find_config(folder / "deep")
    assert load_settings(folder / "symbi.toml", environ={}, cwd=folder).limits.steps == 3


def test_a_folder_that_cannot_be_looked_into_is_an_error_and_not_passed_over(folder):
    loop = folder / "symbi.toml"
    loop.symlink_to(loop)
    with pytest.raises(ConfigError, match="cannot look at"):
        find_config(folder)
