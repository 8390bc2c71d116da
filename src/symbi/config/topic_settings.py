# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""What is said of topics in the configuration."""

from dataclasses import dataclass

from symbi.config.declared import declare as _declare
from symbi.config.declared import require as _require
from symbi.config.kinds import OneOf, Text
from symbi.config.topic_kind import TopicPattern
from symbi.types import Confidentiality


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """`[topics.NAME]`: what some topics are to policies; the name is for people."""

    name: str
    pattern: str = _require(TopicPattern(), "which topics: `*` is one word, `>` the rest")
    owner: str = _declare("unknown", Text(), "person or account that answers for them")
    classification: Confidentiality = _declare(
        Confidentiality.PUBLIC, OneOf(Confidentiality), "the most that they may carry"
    )
