"""The formats of a report."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from symbi.compliance.render_html import render_html
from symbi.compliance.render_md import render_md
from symbi.compliance.report import render_json


class Format(StrEnum):
    """How a report is written."""

    HTML = "html"
    JSON = "json"
    MD = "md"


RENDERERS: Final[Mapping[Format, Callable[[Mapping[str, Any]], bytes]]] = MappingProxyType(
    {Format.HTML: render_html, Format.JSON: render_json, Format.MD: render_md}
)
"""What writes a document in each format."""
