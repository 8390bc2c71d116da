"""The index of vectors on a Qdrant server, by the client that Qdrant keeps; the extra `qdrant` installs it.

One collection for each of ours. It has in its metadata which model made its vectors and which data folder they belong
to; a collection of another one is refused, and so is one that says nothing, for it is not ours. A write is answered for
once the server has it in its log.
"""

from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, cast
from uuid import UUID

import anyio
import numpy as np

from symbi.adapters.qdrant.client import asking
from symbi.errors import ConfigError, InputError, StoreUnavailable
from symbi.guard.action import WriteData
from symbi.guard.permit import Authority, Permit
from symbi.knowledge.config import Quantization, VectorConfig, kib
from symbi.knowledge.permits import check_read, check_write
from symbi.knowledge.port import ReadPermit
from symbi.knowledge.vectors import (
    INDEXED_FIELDS,
    Between,
    Filter,
    IndexStats,
    Namespace,
    OneOf,
    PayloadValue,
    Scope,
    VectorHit,
    VectorPoint,
    VectorQuery,
    VectorSpace,
    unit,
)

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient
    from qdrant_client.http import models

BATCH: Final = 256  # points of one request
PAGE: Final = 1_000
SPACE: Final = "symbi_space"  # in the metadata of a collection
LEAST_KIB: Final = 10  # that a server takes as the least to go through
OWNER: Final = "symbi_owner"  # likewise
_CONFLICT: Final = 409


class QdrantVectors:
    """`symbi.knowledge.port.VectorIndex`, `VectorUpkeep` and `SubjectVectors` on a server; an async context manager.

    Args:
        authority: Where permits are checked.
        client: Of the server; closed with this.
        collection: Its name there.
        space: Of which vectors.
        config: How a collection that is not there yet is built, and how it is searched.
        owner: To which data folder it belongs; not asked if None.
    """

    def __init__(
        self,
        authority: Authority,
        client: "AsyncQdrantClient",
        collection: str,
        space: VectorSpace,
        config: VectorConfig | None = None,
        owner: str | None = None,
    ) -> None:
        self._authority = authority
        self._client = client
        self._name = collection
        self._space = space
        self._config = config or VectorConfig()
        self._owner = owner
        self._write = anyio.Lock()
        self._models: Any = import_module("qdrant_client.http.models")

    async def __aenter__(self) -> Self:
        """Find the collection, or make it with its indexes.

        Raises:
            ConfigError: It has vectors of another space, is another data folder's, or is none of ours.
            StoreUnavailable: The server cannot be reached or refuses.
        """
        try:
            async with asking():
                made = not await self._client.collection_exists(self._name) and await self._create()
                info = await self._client.get_collection(self._name)
                self._check(info, made=made)
                await self._index(info)
        except BaseException:
            await self._client.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        with anyio.CancelScope(shield=True):
            await self._client.close()

    # --- VectorIndex --------------------------------------------------------------------------------

    async def upsert(self, permit: Permit[WriteData], points: Sequence[VectorPoint]) -> None:
        """Put points in."""
        check_write(self._authority, permit, {one.namespace for one in points})
        for one in points:
            self._space.check(one.vector)
        last = list({one.id: one for one in points}.values())
        async with self._write, asking():
            for first in range(0, len(last), BATCH):
                part = last[first : first + BATCH]
                await self._refuse_taken(part)
                await self._client.upsert(self._name, [self._point(one) for one in part], wait=True)

    async def query(self, permit: ReadPermit, query: VectorQuery) -> Sequence[VectorHit]:
        """The nearest points."""
        check_read(self._authority, permit, query.scope.namespaces)
        self._space.check(query.vector)
        if not query.vector.any():
            return ()
        oversampling = self._config.candidates(query.k, query.oversampling)
        params = self._models.SearchParams(
            exact=query.exact,
            acorn=self._models.AcornSearchParams(
                enable=True
            ),  # else a filter that leaves little cuts the graph to pieces
            quantization=self._models.QuantizationSearchParams(
                ignore=query.exact or oversampling is None, rescore=True, oversampling=oversampling
            ),
        )
        async with asking():
            found = await self._client.query_points(
                self._name,
                query=unit(query.vector).tolist(),
                query_filter=self._scope(query.scope),
                limit=query.k,
                with_payload=True,
                with_vectors=query.with_vectors,
                search_params=params,
            )
            hits = [_hit(one) for one in found.points]
        if not {one.namespace for one in hits} <= set(query.scope.namespaces):
            raise StoreUnavailable("the vector database gave a point of another namespace than was asked for")
        return sorted(hits, key=lambda one: (-one.score, one.id))

    async def delete(self, permit: Permit[WriteData], scope: Scope) -> int:
        """Remove points."""
        check_write(self._authority, permit, scope.namespaces)
        return await self._delete(self._scope(scope))

    async def count(self, permit: ReadPermit, scope: Scope) -> int:
        """How many there are."""
        check_read(self._authority, permit, scope.namespaces)
        return await self._count(self._scope(scope))

    async def ids(
        self, permit: ReadPermit, scope: Scope, after: UUID | None = None, limit: int = 1000
    ) -> Sequence[UUID]:
        """Ids in order."""
        check_read(self._authority, permit, scope.namespaces)
        if after is not None and after.int == 2**128 - 1:
            return ()
        offset = None if after is None else str(UUID(int=after.int + 1))
        return await self._page(self._scope(scope), offset, limit)

    # --- SubjectVectors -----------------------------------------------------------------------------

    async def count_subjects(self, subjects: Sequence[str]) -> int:
        """How many points are about some people."""
        return await self._count(self._about(subjects)) if subjects else 0

    async def erase_subjects(self, subjects: Sequence[str], documents: Sequence[str] = ()) -> int:
        """Remove points about some people; when the server writes its files anew is its own business."""
        return await self._delete(self._about(subjects, documents)) if subjects or documents else 0

    async def remove_subjects(self, subjects: Sequence[str]) -> int:
        """Likewise."""
        return await self.erase_subjects(subjects)

    # --- VectorUpkeep -------------------------------------------------------------------------------

    async def optimize(self) -> bool:
        """Nothing: a server puts its collections in order by itself."""
        return False

    async def snapshot(self, target: Path) -> None:
        """Refused: the server makes copies where it keeps its own.

        Raises:
            InputError: Always.
        """
        hint = f"ask the server: POST /collections/{self._name}/snapshots"
        raise InputError(f"no copy of a server's vectors is written to `{target}`", code="vectors.snapshot", hint=hint)

    async def restore(self, source: Path) -> None:
        """Refused likewise.

        Raises:
            InputError: Always.
        """
        hint = f"ask the server: PUT /collections/{self._name}/snapshots/recover"
        raise InputError(f"no copy at `{source}` is put into a server", code="vectors.snapshot", hint=hint)

    async def stats(self) -> IndexStats:
        """How it stands."""
        async with asking():
            info = await self._client.get_collection(self._name)
        busy = info.status != self._models.CollectionStatus.GREEN
        return IndexStats(info.points_count or 0, info.indexed_vectors_count or 0, info.segments_count or 0, 0, busy)

    # --- parts ----------------------------------------------------------------------------------------

    async def _create(self) -> bool:
        """Make it; returns whether it was not there by then."""
        models, config = self._models, self._config
        turbo = models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS4, always_ram=True)
        )
        failures = import_module("qdrant_client.http.exceptions")
        try:
            await self._client.create_collection(
                self._name,
                vectors_config=models.VectorParams(size=self._space.dimension, distance=models.Distance.COSINE),
                hnsw_config=models.HnswConfigDiff(
                    m=config.m,
                    ef_construct=config.ef_construct,
                    full_scan_threshold=max(LEAST_KIB, kib(config.scan_below, self._space.dimension)),
                ),
                optimizers_config=models.OptimizersConfigDiff(
                    indexing_threshold=kib(config.graph_from, self._space.dimension)
                ),
                quantization_config=turbo if config.quantization is Quantization.TURBO4 else None,
                metadata={SPACE: asdict(self._space), OWNER: self._owner},
            )
        except failures.UnexpectedResponse as error:
            if error.status_code != _CONFLICT:  # else somebody has just made it, and it is looked at as any other
                raise
            return False
        return True

    async def _index(self, info: "models.CollectionInfo") -> None:
        """Make the indexes that are not there: at first all, later those before which whoever made it was ended."""
        models = self._models
        for name in ("namespace", *INDEXED_FIELDS):
            if name in (info.payload_schema or {}):
                continue
            schema = (
                models.FloatIndexParams(type=models.FloatIndexType.FLOAT)
                if name == "time"
                else models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=name == "namespace")
            )
            await self._client.create_payload_index(self._name, name, schema, wait=True)

    def _check(self, info: "models.CollectionInfo", *, made: bool) -> None:
        metadata = info.config.metadata or {}
        told, owner = metadata.get(SPACE), metadata.get(OWNER)
        if made and told is None:
            msg = f"the vector database does not keep what `{self._name}` is: it is of a release before 1.16"
            raise ConfigError(msg, code="vectors.server", hint="remove that collection and update the server")
        if told != asdict(self._space):
            made_by = f"`{told.get('embedder')}`" if isinstance(told, dict) else "nobody who says so"
            msg = f"the vectors of `{self._name}` were made by {made_by}, and the configuration has `{self._space.embedder}`"
            hint = "name that embedder again, or remove the collection; `symbi kb verify --repair` and `symbi memory verify --repair` make its vectors anew"
            raise ConfigError(msg, code="vectors.embedder", hint=hint)
        if self._owner is not None and owner != self._owner:
            msg = f"the vectors of `{self._name}` on that server belong to another data folder"
            hint = "set `context.vector_db_collection` to a name of your own, or remove the collection if that folder is gone"
            raise ConfigError(msg, code="vectors.owner", hint=hint)

    async def _refuse_taken(self, points: Sequence[VectorPoint]) -> None:
        spaces = {str(one.id): one.namespace.text for one in points}
        for record in await self._client.retrieve(self._name, list(spaces), with_payload=["namespace"]):
            if (record.payload or {}).get("namespace") != spaces[str(record.id)]:
                msg = "another namespace has a point of this id"
                raise InputError(msg, code="vectors.id", id=str(record.id))

    async def _count(self, wanted: "models.Filter") -> int:
        async with asking():
            return (await self._client.count(self._name, count_filter=wanted, exact=True)).count

    async def _delete(self, wanted: "models.Filter") -> int:
        gone = 0
        async with self._write:
            while found := await self._page(wanted, None, PAGE):
                async with asking():
                    await self._client.delete(self._name, [str(one) for one in found], wait=True)
                gone += len(found)
        return gone

    async def _page(self, wanted: "models.Filter", offset: str | None, limit: int) -> list[UUID]:
        async with asking():
            found, _ = await self._client.scroll(
                self._name, scroll_filter=wanted, limit=limit, offset=offset, with_payload=False, with_vectors=False
            )
        return [UUID(str(one.id)) for one in found]

    def _point(self, point: VectorPoint) -> "models.PointStruct":
        payload = {**point.payload, "namespace": point.namespace.text}
        made: models.PointStruct = self._models.PointStruct(
            id=str(point.id), vector=unit(point.vector).tolist(), payload=payload
        )
        return made

    def _scope(self, scope: Scope) -> "models.Filter":
        names = [one.text for one in scope.namespaces]
        inside = self._models.FieldCondition(key="namespace", match=self._models.MatchAny(any=names))
        return self._filter(scope.filter, [inside])

    def _about(self, subjects: Sequence[str], documents: Sequence[str] = ()) -> "models.Filter":
        shapes, wanted = self._models, (("subject", subjects), ("document", documents))
        either = [
            shapes.FieldCondition(key=name, match=shapes.MatchAny(any=list(some))) for name, some in wanted if some
        ]
        return cast("models.Filter", shapes.Filter(should=either))

    def _filter(self, wanted: Filter, must: list[Any]) -> "models.Filter":
        shapes = self._models
        for one in wanted.conditions:
            match one:
                case OneOf():
                    must.append(shapes.FieldCondition(key=one.name, match=shapes.MatchAny(any=list(one.values))))
                case Between():
                    bounds = shapes.Range(gte=one.least, lte=one.most)
                    must.append(shapes.FieldCondition(key=one.name, range=bounds))
        if wanted.ids is not None:
            must.append(shapes.HasIdCondition(has_id=[str(one) for one in wanted.ids]))
        return cast("models.Filter", shapes.Filter(must=must))


def _hit(point: "models.ScoredPoint") -> VectorHit:
    payload = dict(point.payload or {})
    namespace = Namespace.parse(str(payload.pop("namespace")))
    known: dict[str, PayloadValue] = {key: tuple(one) if isinstance(one, list) else one for key, one in payload.items()}
    vector = None if point.vector is None else np.asarray(point.vector, np.float32)
    return VectorHit(UUID(str(point.id)), point.score, namespace, known, vector)
