# ruff: noqa: RUF009 - the calls make dataclass fields, as `field` does
"""What is said of documents in the configuration: collections, rules, and what reading one may take."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from symbi.config.declared import declare as _declare
from symbi.config.declared import require as _require
from symbi.config.kinds import (
    Address,
    BadValue,
    ByteSize,
    FilePath,
    Flag,
    Kind,
    OneOf,
    Real,
    Several,
    Text,
    Whole,
    describe,
)  # fmt: skip
from symbi.types import Confidentiality

_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")


@dataclass(frozen=True, slots=True)
class People(Several[str]):
    """Names of people, which are shown nowhere: the configuration stands in the trail."""

    def show(self, value: tuple[str, ...]) -> str:
        """How many they are."""
        return f"{len(value)} named" if value else "none"


@dataclass(frozen=True, slots=True)
class ModelName(Kind[str]):
    """What a model is called where it is asked; policies name it so too."""

    @property
    def name(self) -> str:
        """For the reference."""
        return "name of a model"

    def from_toml(self, value: object, base: Path) -> str:
        """Letters, digits and a few signs."""
        del base
        if not isinstance(value, str) or not _MODEL.fullmatch(value):
            hint = "letters, digits and `._:/@+-`, e.g. `gpt-4o-mini`"
            raise BadValue(f"must be a {self.name}, not {describe(value)}", hint)
        return value


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """`[knowledge.collections.NAME]`: what holds for the documents of a collection where no rule says more."""

    name: str
    owner: str = _declare("unknown", Text(), "person or account that answers for them")
    classification: Confidentiality = _declare(
        Confidentiality.INTERNAL,
        OneOf(Confidentiality),
        "how far they may travel; from `confidential` on they are sealed",
    )
    purpose: str = _declare("unknown", Text(), "what they were gathered for")


@dataclass(frozen=True, slots=True)
class DocumentRuleSettings:
    """`[knowledge.rules.NAME]`: what holds for some documents; rules are taken in the order of their names."""

    name: str
    source: str = _require(Text(), "which documents: a pattern with `*` that their source fits, e.g. `runbook/*`")
    collection: str = _declare("", Text(), "of which collection; of any if empty")
    owner: str = _declare("", Text(), "person or account that answers for them; the last rule that says it counts")
    classification: Confidentiality | None = _declare(
        None, OneOf(Confidentiality), "how far they may travel; the most confidential counts", unset="not said"
    )
    purpose: str = _declare("", Text(), "what they were gathered for; the last rule that says it counts")
    subjects: tuple[str, ...] = _declare(
        (), People(Text()), "people that they are about; they are sealed under their keys"
    )
    importance: float = _declare(1.0, Real(0, 100, "times"), "how much they count beside others")
    skip: bool = _declare(default=False, kind=Flag(), meaning="leave them alone")


@dataclass(frozen=True, slots=True)
class KnowledgeSettings:
    """`[knowledge]`."""

    max_file_size: int = _declare(32 * 2**20, ByteSize(1, 2**28), "largest file that is read")
    max_files: int = _declare(100_000, Whole(1, 10_000_000, "files"), "files of one folder that are read")
    max_depth: int = _declare(32, Whole(1, 1000, "folders"), "folders within folders that are looked into")
    read_timeout_s: float = _declare(30.0, Real(0.1, 3600, "seconds"), "time that reading one document may take")
    read_memory_mb: int = _declare(1024, Whole(256, 1_048_576, "MiB"), "memory of the process that reads documents")
    vector_weight: float = _declare(1.0, Real(0, 100, "times"), "how much nearness of meaning counts in a search")
    keyword_weight: float = _declare(1.5, Real(0, 100, "times"), "how much words count in a search")
    recency_weight: float = _declare(0.0, Real(0, 100, "times"), "how much it counts that a document is new")
    recency_half_life_days: float = _declare(365.0, Real(0.01, 36_500, "days"), "age at which that counts half")
    evidence_bar: float | None = _declare(
        None, Real(0, 1, "of 1"), "evidence below which a question is not answered", unset="as calibrated"
    )
    cross_encoder: Path | None = _declare(
        None,
        FilePath(),
        "folder of a sentence-transformers cross-encoder on this machine, which reads question and passage together and ranks again",
        unset="none",
    )
    cross_encoder_weight: float = _declare(1.0, Real(0, 100, "times"), "how much what it says counts")
    answer_model: str | None = _declare(
        None,
        ModelName(),
        "model that writes answers, behind an OpenAI-compatible address; without one they are word for word",
        unset="none",
    )
    answer_base_url: str = _declare(
        "https://api.openai.com/v1", Address(("https", "http")), "base of the address where that model is asked"
    )
    answer_timeout_s: float = _declare(60.0, Real(0.1, 100, "seconds"), "how long it may take over an answer")
    answer_max_tokens: int = _declare(1024, Whole(1, 65_536, "tokens"), "how much it may write")
    answer_local: bool = _declare(
        default=False,
        kind=Flag(),
        meaning="that model runs on this machine and hands texts to nobody; policies are told so",
    )
    collections: tuple[CollectionSettings, ...] = ()
    rules: tuple[DocumentRuleSettings, ...] = ()
