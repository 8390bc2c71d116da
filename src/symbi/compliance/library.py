"""The frameworks that come with Symbi: the `.toml` files of the folder `frameworks`, read when they are asked for."""

from importlib import resources
from typing import Final

from symbi.compliance.framework import Framework
from symbi.compliance.parse import parse_framework
from symbi.errors import InputError, did_you_mean

NAMES: Final = ("gdpr", "hipaa", "sox")
"""Their ids, which are the names of their files."""


def framework_text(name: str) -> str:
    """The file of a framework, or of the template for one's own (`template`).

    Raises:
        InputError: There is none of that name.
    """
    if name not in (*NAMES, "template"):
        msg = f"there is no framework `{name[:64]}`"
        hint = did_you_mean(name, NAMES) or f"there are {', '.join(NAMES)}, and files of your own that end in .toml"
        raise InputError(msg, code="compliance.framework", hint=hint)
    return resources.files("symbi.compliance").joinpath(f"frameworks/{name}.toml").read_text("utf-8")


def framework_named(name: str) -> Framework:
    """A framework that comes with Symbi.

    Raises:
        InputError: There is none of that name.
    """
    return parse_framework(f"symbi/frameworks/{name}.toml", framework_text(name))


def template(name: str) -> str:
    """The template of a framework of one's own.

    Args:
        name: Its id.

    Raises:
        InputError: That is no id.
    """
    text = framework_text("template").replace('id = "NAME"', f'id = "{name}"')
    parse_framework(f"{name}.toml", text)
    return text
