"""What is said of documents before anybody has read them: who answers for them, how far they may travel, whom they are about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from symbi.errors import InputError
from symbi.knowledge.documents import Access
from symbi.policy.flow import CONFIDENTIALITY_RANK
from symbi.types import Confidentiality

MAX_NAME_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class CollectionTerms:
    """What holds for a collection where no rule says more.

    Attributes:
        owner, classification, purpose: As `Access`.
    """

    owner: str = "unknown"
    classification: Confidentiality = Confidentiality.INTERNAL
    purpose: str = "unknown"


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for some documents.

    Attributes:
        name: Of the rule.
        source: Pattern with `*` that their source fits.
        collection: Of which collection; any if empty.
        owner, purpose: Of them; not said if empty. Of several rules the last one that says it counts.
        classification: Of them. Of several rules the most confidential counts.
        subjects: Whom they are about. Of several rules all count.
        importance: How much they count, 1 as any. Of several rules the product counts.
        skip: They are not read at all.
    """

    name: str
    source: str
    collection: str = ""
    owner: str = ""
    classification: Confidentiality | None = None
    purpose: str = ""
    subjects: tuple[str, ...] = ()
    importance: float = 1.0
    skip: bool = False


@dataclass(frozen=True, slots=True)
class DocumentTerms:
    """What holds for one document.

    Attributes:
        access: Who may read it.
        subjects: Whom it is about.
        importance: How much it counts.
        skipped_by: The rule by which it is not read; empty where it is.
    """

    access: Access
    subjects: tuple[str, ...] = ()
    importance: float = 1.0
    skipped_by: str = ""


@dataclass(frozen=True, slots=True)
class Rules:
    """All that is said.

    Attributes:
        collections: By name; one that is not named has the terms of none.
        rules: In order.
    """

    collections: Mapping[str, CollectionTerms] = field(default_factory=dict)
    rules: Sequence[Rule] = ()

    def of_collection(self, collection: str) -> Access:
        """A collection as policies see it where it is empty.

        Raises:
            InputError: The name can be none.
        """
        if not collection or len(collection) > MAX_NAME_CHARS or not collection.isprintable() or "/" in collection:
            msg = f"a collection has a name of at most {MAX_NAME_CHARS} characters without `/`, not `{collection[:80]}`"
            raise InputError(msg, code="knowledge.collection")
        terms = self.collections.get(collection, CollectionTerms())
        return Access(collection, terms.owner, terms.classification, terms.purpose)

    def of_document(self, collection: str, source: str) -> DocumentTerms:
        """What holds for a document.

        Raises:
            InputError: As `of_collection`.
        """
        base = self.of_collection(collection)
        owner, purpose, levels = base.owner, base.purpose, [base.classification]
        subjects: set[str] = set()
        importance, skipped_by = 1.0, ""
        for rule in self.rules:
            if rule.collection not in {"", collection} or not fnmatchcase(source, rule.source):
                continue
            owner, purpose = rule.owner or owner, rule.purpose or purpose
            levels += [rule.classification] if rule.classification is not None else []
            subjects |= set(rule.subjects)
            importance *= rule.importance
            skipped_by = rule.name if rule.skip else skipped_by
        level = max(levels, key=CONFIDENTIALITY_RANK.__getitem__)
        return DocumentTerms(Access(collection, owner, level, purpose), tuple(sorted(subjects)), importance, skipped_by)
