"""Calls of `run(image, command, …)`: the forms of their arguments, and the checks that a file alone allows."""

import re
from typing import Final

from symbi.dsl import ast
from symbi.dsl.builtins import EFFECTS, IMAGE
from symbi.dsl.findings import Findings

NETWORK_ADDRESS: Final = re.compile(
    r"(?:[A-Z]+(?:,[A-Z]+)* )?[A-Za-z0-9\[](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9\]])?:[0-9]{1,5}", re.ASCII
)
"""`api.example.com:443`, `GET,HEAD api.example.com:443`; which of such may be reached is for the rules of egress to say."""
MAX_PORT: Final = 65_535

MAX_NAME_CHARS: Final = 100
FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@ -]*(?<! )", re.ASCII)
"""What a file of a container may be called, up to `MAX_NAME_CHARS`: one part of a path, that means nothing to a file system."""
FILE_NAME_HINT: Final = (
    f"a name has 1 to {MAX_NAME_CHARS} ASCII letters, digits, blanks and `_ . + = @ -`, begins with a letter, a digit or `_`, "
    "and is no path"
)

_RECORDS: Final = frozenset({"inputs", "env", "credentials"})
_LISTS: Final = frozenset({"command", "outputs", "network"})


def is_port(text: str) -> bool:
    """Whether digits are the number of a port."""
    return 0 < int(text) <= MAX_PORT


def is_file_name(name: str) -> bool:
    """Whether a file of a container can be called so."""
    return len(name) <= MAX_NAME_CHARS and FILE_NAME.fullmatch(name) is not None


def check_run(node: ast.Call, findings: Findings, *, contained: bool) -> None:
    """What can be known of a program before it runs: that its image is named by digest, and its arguments have their form.

    Args:
        node: A call of `run`.
        findings: Takes what is wrong.
        contained: It may stand in an agent whose code runs in containers.
    """
    if not contained:  # a policy may still ask for one
        message = "`run` needs a container, and the agent's sandbox is the interpreter"
        findings.warning("sandbox", message, node.span, "write `with sandbox = docker`, or `gvisor`")
    parameters = EFFECTS["run"].parameters
    given = dict(zip(parameters, (item.value for item in node.arguments if item.name is None), strict=False))
    given |= {item.name: item.value for item in node.arguments if item.name is not None}
    for name, value in given.items():
        _argument(name, value, findings)


def _argument(name: str, value: ast.Expr, findings: Findings) -> None:
    match value:
        case ast.String(value=text) if name == "image":
            if not IMAGE.fullmatch(text):
                message = "an image is named by digest: a tag may be another image tomorrow"
                findings.error("arguments", message, value.span, "write `name@sha256:…`, or an id `sha256:…`")
        case ast.Array(items=items) if name in _LISTS:
            for item in items:
                _item(name, item, findings)
            if name == "command" and not items:
                findings.error("arguments", "a command is a program and its arguments", value.span)
        case ast.Record(fields=fields) if name in _RECORDS:
            for field in fields:
                if name == "inputs":
                    _file(field.key, field.span, findings)
                elif name == "credentials" and not isinstance(field.value, ast.VaultRef | ast.Name):
                    message = "credentials are vault references by host"
                    findings.error("arguments", message, field.span, "write `vault://…`")
        case ast.String() | ast.Number() | ast.Duration() | ast.Record() | ast.Array() if _is_wrong(name, value):
            form = "a record" if name in _RECORDS else "a list of texts" if name in _LISTS else _FORMS[name]
            findings.error("arguments", f"`{name}` of `run` is {form}", value.span, f"call it as `{EFFECTS['run']}`")
        case _:
            pass


_FORMS: Final = {"image": "a text", "timeout": "a length of time"}


def _is_wrong(name: str, value: ast.Expr) -> bool:
    if name == "timeout":
        return not isinstance(value, ast.Number | ast.Duration)
    return name in _RECORDS | _LISTS | {"image"}


def _item(name: str, item: ast.Expr, findings: Findings) -> None:
    match item:
        case ast.String(value=text) if name == "network":
            if not NETWORK_ADDRESS.fullmatch(text) or not is_port(text.rpartition(":")[2]):
                message = f"`{text}` is no host and port"
                findings.error("arguments", message, item.span, 'write `"api.example.com:443"`')
        case ast.String(value=text) if name == "outputs":
            _file(text, item.span, findings)
        case ast.Number() | ast.Duration() | ast.Record() | ast.Array():
            findings.error("arguments", f"`{name}` of `run` is a list of texts", item.span)
        case _:
            pass


def _file(name: str, span: ast.Span, findings: Findings) -> None:
    if not is_file_name(name):
        shown = name[:MAX_NAME_CHARS] if name.isprintable() else "…"
        findings.error("arguments", f"`{shown}` is not the name of a file", span, FILE_NAME_HINT)
