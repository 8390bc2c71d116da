"""What of an item is sealed, and under whose keys; and what stands in it.

An item that is about data subjects is sealed under their keys, so that it is gone with them. One that is confidential
or secret, or any where everything is to be sealed, is sealed under the key of its agent. A sealed item has no words, no
tags and no vector outside of what is sealed: they would say what it says.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from symbi.context.kinds import LASTING, ContextItem, Found
from symbi.context.port import Row
from symbi.context.words import plain_json
from symbi.errors import InputError, StoreUnavailable, VerificationError
from symbi.guard.confidential import keys_for, open_column
from symbi.guard.sealed import is_sealed
from symbi.guard.vault import NO_KEYS, Keys, Vault, agent_subject, place
from symbi.policy.flow import CONFIDENTIALITY_RANK, MAX_SOURCES, MORE_SOURCES
from symbi.types import Confidentiality, Integrity, JsonValue, Label, Principal, RunId

SEALED_FROM: Final = Confidentiality.CONFIDENTIAL
"""From here on, an item is sealed also where it is about nobody."""


def level_of(label: Label) -> str:
    """What readers of an item are decided on, as a text: how far it may be believed and travel, and its categories."""
    categories = ",".join(one.replace("%", "%25").replace(",", "%2C") for one in label.categories)
    return f"{label.integrity.value}/{label.confidentiality.value}/{categories}"


def label_of_level(level: str) -> Label:
    """The label that policies see of a level.

    Raises:
        StoreUnavailable: It is none that this release has written.
    """
    integrity, _, rest = level.partition("/")
    confidentiality, _, categories = rest.partition("/")
    names = tuple(one.replace("%2C", ",").replace("%25", "%") for one in categories.split(",") if one)
    try:
        return Label(Integrity(integrity), Confidentiality(confidentiality), (), names)
    except ValueError as error:
        msg = f"the store holds a level of memory that was not written by it: {error}"
        raise StoreUnavailable(msg, code="unavailable.store_damaged") from error


def to_be_sealed(label: Label) -> bool:
    """Whether a label asks for an item to be sealed."""
    return bool(label.subjects) or CONFIDENTIALITY_RANK[label.confidentiality] >= CONFIDENTIALITY_RANK[SEALED_FROM]


async def item_keys(vault: Vault | None, principal: Principal, label: Label) -> Keys:
    """The keys of an item, durable.

    Raises:
        StoreUnavailable: They are not to be had.
        Overloaded: Too much waits for the store.
        InputError: It asks to be sealed, and there is nothing to seal it with.
    """
    if vault is None:
        if to_be_sealed(label):
            msg = "this is to be sealed, and there is no vault"
            raise InputError(msg, code="context.vault")
        return NO_KEYS
    own = () if label.subjects or not to_be_sealed(label) else (agent_subject(principal.agent),)
    return await keys_for(vault, principal.agent, own or label.subjects)


def item_place(row_id: str) -> bytes:
    """What a sealed item is bound to."""
    return place("memories", "body", row_id)


@dataclass(frozen=True, slots=True)
class Body:
    """What stands in an item beside what the store can be asked for.

    Attributes:
        content, tags, label: As the item.
        run_id: The run that it came from, or empty.
        effect_id: The effect that kept it.
    """

    content: JsonValue
    tags: tuple[str, ...]
    label: Label
    run_id: RunId
    effect_id: str

    @classmethod
    def of(cls, item: ContextItem, effect_id: str) -> "Body":
        """Of an item that an effect keeps."""
        return cls(item.content, item.tags, item.label, item.run_id, effect_id)

    def to_json(self) -> bytes:
        """As it is kept."""
        label = self.label
        return plain_json(
            {
                "content": self.content, "tags": list(self.tags), "integrity": label.integrity.value,
                "confidentiality": label.confidentiality.value, "categories": list(label.categories),
                "sources": list(label.sources), "subjects": list(label.subjects),
                "run": self.run_id, "effect": self.effect_id,
            }
        )  # fmt: skip


def read_body(data: bytes) -> Body:
    """Inverse of `Body.to_json`.

    Raises:
        StoreUnavailable: It is none.
    """
    try:
        kept: Mapping[str, Any] = json.loads(data)
        label = Label(
            Integrity(kept["integrity"]), Confidentiality(kept["confidentiality"]), tuple(kept["sources"]),
            tuple(kept["categories"]), tuple(kept["subjects"]),
        )  # fmt: skip
        return Body(kept["content"], tuple(kept["tags"]), label, RunId(kept["run"]), kept["effect"])
    except (ValueError, KeyError, TypeError) as error:
        msg = f"the store holds an item of memory that was not written by it: {error}"
        raise StoreUnavailable(msg, code="unavailable.store_damaged") from error


def opened_body(row: Row, vault: Vault | None) -> Body | None:
    """What stands in an item, or None where that was erased; on the store's thread.

    Raises:
        DecryptionFailed: It was altered, or moved from elsewhere.
        ConfigError: There is no master key.
    """
    try:
        opened = open_column(vault, row.body, item_place(row.id))
    except VerificationError as error:
        if error.fields.get("reason") == "erased":
            return None
        raise
    assert opened is not None
    return read_body(opened)


def resealed(row: Row, body: Body, keys: Keys) -> Row:
    """An item with another body."""
    return replace(row, body=keys.seal(body.to_json(), item_place(row.id)))


def kept_once(row: Row) -> bool:
    """Whether the same item is kept once."""
    return row.kind in LASTING


def merged_sources(*labels: Label) -> tuple[str, ...]:
    """Where an item came from that was kept several times."""
    sources = sorted({source for label in labels for source in label.sources} - {MORE_SOURCES})
    more = len(sources) > MAX_SOURCES or any(MORE_SOURCES in label.sources for label in labels)
    return tuple(sorted([*sources[:MAX_SOURCES], MORE_SOURCES])) if more else tuple(sources)


def found(row: Row, body: Body, score: float = 0.0) -> Found:
    """An item as it is handed out."""
    return Found(
        row.id, row.space, row.kind, row.form, body.tags, row.importance, body.content, body.label, row.at_ms,
        row.shared, body.run_id, body.effect_id, row.tokens, row.times, score,
    )  # fmt: skip


def is_sealed_row(row: Row) -> bool:
    """Whether an item is sealed."""
    return is_sealed(row.body)
