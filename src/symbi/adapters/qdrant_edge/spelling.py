"""How points, scopes and hits are spelled in the questions to the engine's process and in its answers."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np

from symbi.errors import StoreUnavailable
from symbi.knowledge.vectors import (
    Between,
    Filter,
    Namespace,
    OneOf,
    PayloadValue,
    Scope,
    VectorHit,
    VectorPoint,
    unit,
)

AskedScope: TypeAlias = tuple[object, object, Sequence[bytes] | None]
"""Namespaces, conditions, ids; each None where all are meant."""


def as_point(point: VectorPoint) -> object:
    """A point that is put in; its vector gets the length 1."""
    return [point.id.bytes, unit(point.vector).tobytes(), {**point.payload, "namespace": point.namespace.text}]


def as_scope(scope: Scope) -> AskedScope:
    """What is looked through, of the namespaces that it names."""
    return [one.text for one in scope.namespaces], *_filter(scope.filter)


def about(subjects: Sequence[str], documents: Sequence[str] = ()) -> AskedScope:
    """What is about one of some people or of one of some documents, in all namespaces."""
    return None, [["either", *(one for one in (("subject", subjects), ("document", documents)) if one[1])]], None


def _filter(wanted: Filter) -> tuple[object, Sequence[bytes] | None]:
    conditions: list[object] = []
    for one in wanted.conditions:
        match one:
            case OneOf():
                conditions.append(["one", one.name, one.values])
            case Between():
                conditions.append(["between", one.name, one.least, one.most])
    return conditions, None if wanted.ids is None else [one.bytes for one in wanted.ids]


def as_hit(
    there: Mapping[str, Namespace], name: bytes, score: float, payload: dict[str, Any], vector: bytes | None
) -> VectorHit:
    """A point that was found.

    Raises:
        StoreUnavailable: It is of another namespace than was asked for.
    """
    namespace = there.get(payload.pop("namespace"))
    if namespace is None:
        raise StoreUnavailable("the engine of vectors gave a point of another namespace than was asked for")
    known: dict[str, PayloadValue] = {key: tuple(one) if isinstance(one, list) else one for key, one in payload.items()}
    return VectorHit(
        UUID(bytes=name), score, namespace, known, None if vector is None else np.frombuffer(vector, np.float32)
    )
