"""Values of the vector index. Every question names its namespaces: there is no way to make one without."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Final, TypeAlias
from urllib.parse import quote, unquote
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from symbi.errors import InputError

Vector: TypeAlias = NDArray[np.float32]
PayloadValue: TypeAlias = "str | int | float | bool | tuple[str, ...]"

INDEXED_FIELDS: Final = ("document", "subject", "label", "time")  # `time` in milliseconds since the epoch
MAX_RESULTS: Final = 10_000  # hits of one query
MAX_WHOLE: Final = 2**53  # beyond it a number is not what it says once it is compared
MAX_DIMENSION: Final = 65_536
MAX_PAYLOAD_TEXT: Final = 65_536  # characters in one field; texts themselves are kept elsewhere
_FIELD: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TYPES: Final = frozenset({"Knowledge", "Memory"})


@dataclass(frozen=True, slots=True, order=True)
class Namespace:
    """To what a vector belongs: a knowledge base or a memory, and a part of it, e.g. one agent's.

    Attributes:
        type: `Knowledge` or `Memory`, as the permit's `DataRef`.
        name: Its name, as the permit's `DataRef`.
        part: Of it; empty where it has none.

    Raises:
        InputError: It can be no namespace.
    """

    type: str
    name: str
    part: str = ""

    def __post_init__(self) -> None:
        """Refuse what is none."""
        if self.type not in _TYPES or not self.name:
            raise InputError(f"no namespace: `{self.type}` `{self.name}`", code="vectors.namespace")
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise InputError("a namespace's name is no Unicode text", code="vectors.namespace") from None

    @property
    def text(self) -> str:
        """As an index keeps it; no two namespaces have the same."""
        return "/".join(quote(one, safe=" ") for one in (self.type, self.name, self.part))

    @classmethod
    def parse(cls, text: str) -> "Namespace":
        """Inverse of `text`.

        Raises:
            InputError: It is none.
        """
        parts = text.split("/")
        if len(parts) != 3:  # noqa: PLR2004 - type, name, part
            raise InputError(f"no namespace: `{text}`", code="vectors.namespace")
        return cls(*(unquote(one) for one in parts))


@dataclass(frozen=True, slots=True)
class OneOf:
    """A field has one of some values, or a list of texts has one of them in it.

    Attributes:
        name: Of the field.
        values: All texts, or all whole numbers; a text is never a number, and 1 is not 1.0.

    Raises:
        InputError: It asks for nothing, or for a mixture.
    """

    name: str
    values: tuple[str, ...] | tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what no index can be asked."""
        _check_field(self.name)
        kinds = {type(one) for one in self.values}
        if kinds not in ({str}, {int}):
            raise InputError(
                f"`{self.name}` is to be one of some texts, or of some whole numbers", code="vectors.filter"
            )
        for one in self.values:
            _check_value(self.name, one)


@dataclass(frozen=True, slots=True)
class Between:
    """A field is a number within bounds, both included; one of them may be open.

    Attributes:
        name: Of the field.
        least, most: The bounds.

    Raises:
        InputError: No bound, or one that is no finite number.
    """

    name: str
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no index can be asked."""
        _check_field(self.name)
        bounds = [one for one in (self.least, self.most) if one is not None]
        if not bounds or any(isinstance(one, bool) for one in bounds):
            raise InputError(f"`{self.name}` is to be between numbers", code="vectors.filter")
        for one in bounds:
            _check_value(self.name, one)


Condition: TypeAlias = OneOf | Between


@dataclass(frozen=True, slots=True)
class Filter:
    """What all have to be: every condition holds.

    Attributes:
        conditions: On fields of the payload.
        ids: Only these points; any if None.
    """

    conditions: tuple[Condition, ...] = ()
    ids: frozenset[UUID] | None = None


EVERYTHING: Final = Filter()


@dataclass(frozen=True, slots=True)
class Scope:
    """Which points are meant: those of some namespaces, and of them those that a filter lets through.

    Attributes:
        namespaces: At least one; all of the knowledge base or memory that the permit is for.
        filter: What else has to hold.

    Raises:
        InputError: No namespace.
    """

    namespaces: tuple[Namespace, ...]
    filter: Filter = EVERYTHING

    def __post_init__(self) -> None:
        """Refuse to mean everybody's."""
        if not self.namespaces:
            raise InputError("name the namespaces that are meant", code="vectors.namespace")


@dataclass(frozen=True, slots=True)
class VectorPoint:
    """One vector and what is known of it.

    Attributes:
        id: Unique in the index, also across namespaces.
        vector: Float32; of any length, which does not matter. One of zeros is near to nothing.
        namespace: To what it belongs.
        payload: Facts to filter by: texts, lists of texts, numbers (whole ones up to 2^53), booleans.

    Raises:
        InputError: The vector is none, or a field or value can be none.
    """

    id: UUID
    vector: Vector
    namespace: Namespace
    payload: Mapping[str, PayloadValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what an index could not give back as it was."""
        object.__setattr__(self, "vector", as_vector(self.vector))
        for name, value in self.payload.items():
            _check_field(name)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(value, tuple) and not isinstance(one, str):
                    raise InputError(f"`{name}` lists what is no text", code="vectors.payload")
                _check_value(name, one)


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """What is looked for.

    Attributes:
        vector: Near to this one, by cosine.
        k: So many, from 1 to `MAX_RESULTS`.
        scope: Among these.
        oversampling: Quantised candidates that are scored again with the whole vectors, for each hit; the index's own
            measure if None.
        exact: Compare with every vector of the scope; slow where there are many.
        with_vectors: Whether hits bear their vectors.

    Raises:
        InputError: A value is out of bounds.
    """

    vector: Vector
    k: int
    scope: Scope
    oversampling: float | None = None
    exact: bool = False
    with_vectors: bool = False

    def __post_init__(self) -> None:
        """Refuse what is out of bounds."""
        object.__setattr__(self, "vector", as_vector(self.vector))
        if not 1 <= self.k <= MAX_RESULTS:
            raise InputError(f"a query asks for 1 to {MAX_RESULTS} hits, not {self.k}", code="vectors.query")
        if self.oversampling is not None and not 1 <= self.oversampling <= 100:  # noqa: PLR2004 - a hundredfold is plenty
            raise InputError("oversampling is from 1 to 100", code="vectors.query")


@dataclass(frozen=True, slots=True)
class VectorHit:
    """A point that was found.

    Attributes:
        id: Of the point.
        score: Cosine of the angle between the two, from -1 to 1.
        namespace: Where it was found.
        payload: What is known of it.
        vector: Of unit length, or of zeros; None where the query did not ask for it.
    """

    id: UUID
    score: float
    namespace: Namespace
    payload: Mapping[str, PayloadValue]
    vector: Vector | None = None


@dataclass(frozen=True, slots=True)
class VectorSpace:
    """Of which vectors an index is made; it remembers that and refuses others.

    Attributes:
        embedder: Name of the model that made them.
        digest: Of that model.
        dimension: Numbers in each.
        distance: How near two are; `cosine` alone.
    """

    embedder: str
    digest: str
    dimension: int
    distance: str = "cosine"

    def __post_init__(self) -> None:
        """Refuse what is out of bounds."""
        if not 1 <= self.dimension <= MAX_DIMENSION:
            raise InputError(f"a vector has 1 to {MAX_DIMENSION} dimensions", code="vectors.dimension")

    def check(self, vector: Vector) -> None:
        """Refuse a vector of another space.

        Raises:
            InputError: It has another number of dimensions.
        """
        if vector.shape != (self.dimension,):
            msg = f"a vector has {vector.shape[0]} dimensions, and the index {self.dimension}"
            raise InputError(msg, code="vectors.dimension")


@dataclass(frozen=True, slots=True)
class IndexStats:
    """How an index stands.

    Attributes:
        points: Vectors in it.
        indexed: Of them, in a graph; the rest is scanned.
        segments: Pieces that a query goes through.
        disk_bytes: What its files take; 0 where that is another machine's business.
        optimizing: Whether it is being put in order at the moment.
    """

    points: int
    indexed: int
    segments: int
    disk_bytes: int
    optimizing: bool = False


def unit(vector: Vector) -> Vector:
    """The same direction, of length one; zeros stay zeros."""
    length = float(np.linalg.norm(vector.astype(np.float64)))
    return (vector / length).astype(np.float32) if length else vector


def as_vector(value: "Vector | Sequence[float]") -> Vector:
    """One dimension of finite float32.

    Raises:
        InputError: It is none.
    """
    vector = np.asarray(value, dtype=np.float32)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise InputError("a vector is one row of finite numbers", code="vectors.vector")
    return vector


def _check_field(name: str) -> None:
    if not _FIELD.fullmatch(name) or name == "namespace":
        hint = "small letters, digits and underscores, and not `namespace`"
        raise InputError(f"no field of a payload: `{name}`", code="vectors.payload", hint=hint)


def _check_value(name: str, value: PayloadValue) -> None:
    match value:
        case bool():
            return
        case int() if -MAX_WHOLE <= value <= MAX_WHOLE:
            return
        case float() if isfinite(value):
            return
        case str() if len(value) <= MAX_PAYLOAD_TEXT and not _has_surrogates(value):
            return
        case _:
            raise InputError(f"`{name}` has a value that an index does not keep", code="vectors.payload")


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
