"""HTML that is safe by construction: whatever is not made here is text, and stands escaped."""

import html
from collections.abc import Sequence
from typing import Final, TypeAlias


class Markup:
    """A piece of HTML that this module made.

    Args:
        text: The piece; never one that came from outside.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


Child: TypeAlias = "Markup | str | int | Sequence[Child] | None"
"""What can stand in an element: markup, or what is shown as it is."""

VOID: Final = frozenset({"meta", "br"})


def escaped(text: object) -> str:
    """A text for HTML; characters that show nothing, or steer how others are shown, stand as U+FFFD."""
    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in str(text))
    return html.escape(shown, quote=True)


def tag(name: str, /, *children: Child, **attributes: str) -> Markup:
    """An element.

    Args:
        name: Its name; never one from outside.
        children: What stands in it; sequences are taken apart, None is nothing.
        attributes: Its attributes; `class_` is `class`, and `_` inside a name is `-`.
    """
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"' for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{given}>")
    return Markup(f"<{name}{given}>{''.join(_child(child) for child in children)}</{name}>")


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child.text
    if isinstance(child, str | int):
        return escaped(child)
    return "".join(_child(one) for one in child)
