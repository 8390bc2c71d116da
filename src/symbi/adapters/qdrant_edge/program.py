"""Qdrant's engine in a process of its own, which answers one question after another.

The engine holds the interpreter while it works, for minutes where it builds a graph. So it never runs in the process of
the runtime: `python -I program.py` holds one shard, reads frames from standard input and answers on standard output. A
frame is its length in four bytes and MessagePack: `[number, operation, …]`, answered by `[number, "ok", value]` or
`[number, "error", kind, text]`. It ends with its parent, or where its input ends; what was acknowledged is in the log by then.
"""

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec
import numpy as np
import qdrant_edge as edge

PR_SET_PDEATHSIG: Final = 1
KEYWORDS: Final = ("document", "subject", "label")
NUMBERS: Final = ("time",)
MAX_FRAME: Final = 512 * 1024 * 1024


class Taken(Exception):
    """An id is another namespace's."""


class Engine:
    """One shard and what can be asked of it."""

    def __init__(self) -> None:
        self._shard: Any = None

    def answer(self, request: Sequence[Any]) -> object:
        """Do what is asked."""
        operation, *arguments = request
        known: dict[str, Callable[..., object]] = {
            "create": self.create,
            "load": self.load,
            "upsert": self.upsert,
            "put": self.put,
            "query": self.query,
            "delete": self.delete,
            "count": self.count,
            "ids": self.ids,
            "records": self.records,
            "optimize": self.optimize,
            "flush": self.flush,
            "info": self.info,
            "close": self.close,
        }
        return known[operation](*arguments)

    def create(self, folder: str, terms: dict[str, Any]) -> None:
        """Make a shard that is not there, with its indexes."""
        self._shard = edge.EdgeShard.create(folder, self._config(terms))
        self._shard.update(
            edge.UpdateOperation.create_field_index("namespace", edge.KeywordIndexParams(is_tenant=True))
        )
        for name in KEYWORDS:
            keyword = edge.KeywordIndexParams(enable_hnsw=False)
            self._shard.update(edge.UpdateOperation.create_field_index(name, keyword))
        for name in NUMBERS:
            number = edge.FloatIndexParams(enable_hnsw=False)
            self._shard.update(edge.UpdateOperation.create_field_index(name, number))
        self._shard.flush()

    def load(self, folder: str, terms: dict[str, Any]) -> None:
        """Open a shard that is there."""
        self._shard = edge.EdgeShard.load(folder, self._config(terms))

    def upsert(self, points: Sequence[Any], replacing: bool) -> int | None:  # noqa: FBT001 - as it is asked
        """Put points in, unless another namespace has one of their ids; returns how many were there already.

        Where some are, and none is to be replaced, nothing is put in, and it returns None.
        """
        spaces = {UUID(bytes=one[0]): one[2]["namespace"] for one in points}
        there = self._shard.retrieve(list(spaces), with_payload=["namespace"], with_vector=False)
        for record in there:
            if record.payload["namespace"] != spaces[record.id]:
                raise Taken(str(record.id))
        if there and not replacing:
            return None
        self.put(points)
        return len(there)

    def put(self, points: Sequence[Any]) -> None:
        """Put points in."""
        made = [
            edge.Point(UUID(bytes=name), np.frombuffer(vector, np.float32), payload)  # type: ignore[arg-type]
            for name, vector, payload in points
        ]
        self._shard.update(edge.UpdateOperation.upsert_points(made))

    def query(self, vector: bytes, k: int, scope: Any, terms: dict[str, Any]) -> list[object]:
        """The nearest points: id, score, payload, vector."""
        oversampling = terms["oversampling"]
        quantized = edge.QuantizationSearchParams(
            ignore=terms["exact"] or not oversampling, rescore=True, oversampling=oversampling
        )
        found = self._shard.query(
            edge.QueryRequest(
                limit=k,
                query=edge.Query.Nearest(np.frombuffer(vector, np.float32)),  # type: ignore[arg-type]
                filter=_filter(scope),
                with_payload=True,
                with_vector=terms["with_vectors"],
                params=edge.SearchParams(
                    exact=terms["exact"], quantization=quantized, acorn=edge.AcornSearchParams(enable=True)
                ),
            )
        )
        return [[one.id.bytes, one.score, one.payload, _bytes(one.vector)] for one in found]

    def delete(self, names: Sequence[bytes]) -> None:
        """Remove points by id."""
        self._shard.update(edge.UpdateOperation.delete_points([UUID(bytes=one) for one in names]))

    def count(self, scope: Any) -> int:
        """How many points there are."""
        count: int = self._shard.count(edge.CountRequest(exact=True, filter=_filter(scope)))
        return count

    def ids(self, scope: Any, after: bytes | None, limit: int) -> list[bytes]:
        """Ids in order, behind one of them."""
        offset = None if after is None else UUID(int=UUID(bytes=after).int + 1)
        found, _ = self._shard.scroll(
            edge.ScrollRequest(offset=offset, limit=limit, filter=_filter(scope), with_payload=False, with_vector=False)
        )
        return [one.id.bytes for one in found]

    def records(self, names: Sequence[bytes]) -> list[object]:
        """Points by id, whole: id, vector, payload."""
        found = self._shard.retrieve([UUID(bytes=one) for one in names], with_payload=True, with_vector=True)
        return [[one.id.bytes, _bytes(one.vector), one.payload] for one in found]

    def optimize(self) -> bool:
        """Merge, build graphs, let go of what was deleted."""
        changed: bool = self._shard.optimize()
        self._shard.flush()
        return changed

    def flush(self) -> None:
        """Write what is in memory alone."""
        self._shard.flush()

    def info(self) -> list[int]:
        """Points, points in graphs, segments."""
        info = self._shard.info()
        return [info.points_count, info.indexed_vectors_count, info.segments_count]

    def close(self) -> None:
        """Let go of the shard."""
        if self._shard is not None:
            self._shard.flush()
            self._shard.close()
            self._shard = None

    def _config(self, terms: dict[str, Any]) -> "edge.EdgeConfig":
        turbo = edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4, memory=edge.Memory.Pinned)
        return edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(size=terms["dimension"], distance=edge.Distance.Cosine),
            hnsw_config=edge.HnswIndexConfig(terms["m"], terms["ef_construct"], terms["scan_kib"]),
            quantization_config=turbo if terms["quantization"] == "turbo4" else None,
            optimizers=edge.EdgeOptimizersConfig(
                indexing_threshold=terms["graph_kib"], max_segment_size=terms["segment_kib"]
            ),
        )


def _filter(scope: Any) -> "edge.Filter":
    namespaces, conditions, names = scope
    must: list[Any] = []
    if namespaces is not None:  # None in what is asked about people, in all of them
        must.append(edge.FieldCondition("namespace", match=edge.MatchAny(namespaces)))
    for kind, name, *values in conditions:
        if kind == "either":
            fields: list[Any] = [
                edge.FieldCondition(field, match=edge.MatchAny(some)) for field, some in (name, *values)
            ]
            must.append(edge.Filter(should=fields))
        elif kind == "one":
            must.append(edge.FieldCondition(name, match=edge.MatchAny(values[0])))
        else:
            must.append(edge.FieldCondition(name, range=edge.RangeFloat(gte=values[0], lte=values[1])))
    if names is not None:
        must.append(edge.HasIdCondition({UUID(bytes=one) for one in names}))
    return edge.Filter(must=must)


def _bytes(vector: Any) -> bytes | None:
    return None if vector is None else np.asarray(vector, np.float32).tobytes()


def frame(reply: list[object]) -> bytes:
    """An answer as it is written; one that is too long is an error."""
    out = msgspec.msgpack.encode(reply)
    if len(out) > MAX_FRAME:
        out = msgspec.msgpack.encode(
            [reply[0], "error", "engine", f"an answer of {len(out)} bytes is too long; ask for less"]
        )
    return struct.pack("<I", len(out)) + out


def main() -> None:
    """Answer until the input ends."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before it could be noticed
            return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent is told, and tells us; it may have something to write yet
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints, does not print into an answer
    questions = os.fdopen(0, "rb", buffering=1024 * 1024)
    engine = Engine()
    while head := questions.read(4):
        if len(head) < 4:  # noqa: PLR2004 - the length of a frame
            return
        (length,) = struct.unpack("<I", head)
        body = questions.read(length) if length <= MAX_FRAME else b""
        if len(body) < length:
            return
        asked, *request = msgspec.msgpack.decode(body)
        try:
            reply: list[object] = ["ok", engine.answer(request)]
        except Taken as error:
            reply = ["error", "taken", str(error)]
        except Exception as error:  # noqa: BLE001 - the engine raises Exception itself; the parent says whose fault it is
            reply = ["error", "engine", f"{type(error).__name__}: {error}"]
        answers.write(frame([asked, *reply]))
        answers.flush()


if __name__ == "__main__":
    main()
