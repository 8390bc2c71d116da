"""What a file alone tells of `run`: images without a digest, arguments of another form, an agent without containers."""

import pytest

from symbi.dsl.check import check
from symbi.dsl.parser import parse

IMAGE = f"tool@sha256:{64 * '0'}"


def found(body, sandbox="sandbox = docker"):
    text = f"agent a(x: String, r: Any) {{ with {sandbox} {{ {body} }} }}"
    return check(parse(text.replace("IMAGE", IMAGE), "t.symbi"))


@pytest.mark.parametrize(
    "body",
    [
        'run("IMAGE", ["tool"]);',
        f'run("sha256:{64 * "0"}", ["tool", x]);',
        'run("IMAGE", ["tool", x], inputs = { "a.txt": x, b: [1] }, outputs = ["o.json"], timeout = 30s).code;',
        'run("IMAGE", x, r, r, r, r, r, r);',
        'run(x, split(x, " "), inputs = r, env = { MODE: x }, timeout = 5);',
        'run("IMAGE", ["tool"], network = ["api.example.com:443", x], credentials = { "api.example.com": vault://a/b });',
        'let done = run(image = "IMAGE", command = ["tool"]); return done.outputs;',
    ],
)
def test_what_can_run_is_taken(body):
    assert found(body) == ()


@pytest.mark.parametrize(
    ("body", "code", "message", "hint"),
    [
        ('run(§"python:3.12", ["tool"]);', "arguments", "named by digest", "sha256:"),
        ('run(§"tool@sha256:00", ["tool"]);', "arguments", "named by digest", "sha256:"),
        ('run(§["IMAGE"], ["tool"]);', "arguments", "`image` of `run` is a text", "run(image, command"),
        ('run("IMAGE", §"tool --fast");', "arguments", "`command` of `run` is a list of texts", "run(image, command"),
        ('run("IMAGE", §[]);', "arguments", "a command is a program and its arguments", ""),
        ('run("IMAGE", ["tool", §7]);', "arguments", "list of texts", ""),
        ('run("IMAGE", ["tool"], inputs = §["a"]);', "arguments", "`inputs` of `run` is a record", ""),
        ('run("IMAGE", ["tool"], outputs = §"o");', "arguments", "`outputs` of `run` is a list of texts", ""),
        ('run("IMAGE", ["tool"], outputs = [§"../o"]);', "arguments", "`../o` is not the name of a file", "no path"),
        ('run("IMAGE", ["tool"], inputs = { §"/a": x });', "arguments", "`/a` is not the name of a file", "no path"),
        ('run("IMAGE", ["tool"], env = §"A=B");', "arguments", "`env` of `run` is a record", ""),
        ('run("IMAGE", ["tool"], timeout = §"30s");', "arguments", "`timeout` of `run` is a length of time", ""),
        ('run("IMAGE", ["tool"], network = [§"example.com"]);', "arguments", "no host and port", "api.example.com:443"),
        ('run("IMAGE", ["tool"], network = [§"example.com:0"]);', "arguments", "no host and port", ""),
        ('run("IMAGE", ["tool"], credentials = { §"h": "key" });', "arguments", "vault references", "vault://"),
        ('§run("IMAGE");', "arguments", "`run` needs `command`", "run(image, command"),
        ('run("IMAGE", ["tool"], §output = ["o"]);', "arguments", "no parameter `output`", "outputs"),
        ('run("IMAGE", §vault://a/b);', "vault", "a secret can be handed to a tool", ""),
    ],
)
def test_what_cannot_is_told_at_its_place(body, code, message, hint):
    (error,) = [one for one in found(body.replace("§", "")) if one.severity == "error"]
    assert error.code == f"dsl.{code}"
    assert message in error.message
    assert hint in error.hint
    before = f"agent a(x: String, r: Any) {{ with sandbox = docker {{ {body[: body.index('§')]}".replace("IMAGE", IMAGE)
    assert error.place.column == len(before) + 1


@pytest.mark.parametrize("sandbox", ["sandbox = interpreter", "timeout = 30s"])
def test_an_agent_without_containers_is_warned(sandbox):
    (warning,) = found('run("IMAGE", ["tool"]);', sandbox)
    assert (warning.severity, warning.code) == ("warning", "dsl.sandbox")
    assert "with sandbox = docker" in warning.hint


def test_capabilities_can_list_it():
    source = 'agent a {{ capabilities = [{}] with sandbox = gvisor {{ run("{}", ["tool"]); }} }}'
    assert check(parse(source.format("run", IMAGE), "t.symbi")) == ()
    (warning,) = check(parse(source.format("log", IMAGE), "t.symbi"))
    assert "do not list `run`" in warning.message
