"""The connections of one sandbox, each judged, recorded and ended by itself.

One connection carries one request: there is no second one that two readers could find in two places.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ssl import SSLContext, SSLError
from typing import Final, NoReturn

import anyio
from anyio.abc import ByteStream

from symbi.adapters.egress.credential import Secret
from symbi.adapters.egress.forward import forward
from symbi.adapters.egress.outward import Dial
from symbi.adapters.egress.record import Cut, Meter, Record, Use
from symbi.adapters.egress.streams import Inside, Outside
from symbi.adapters.egress.tunnel import tunnel
from symbi.audit.event import AuditEventType
from symbi.sandbox.egress import EgressGrant
from symbi.sandbox.heads import Head, Refusal, Route, judge, read_head
from symbi.types import JsonValue

UNREACHABLE: Final = Refusal("egress.unreachable", HTTPStatus.BAD_GATEWAY)
TOO_MANY: Final = Refusal("egress.connections", HTTPStatus.TOO_MANY_REQUESTS)
TOO_LATE: Final = Refusal("egress.time", HTTPStatus.REQUEST_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Outsides:
    """How the outside is reached.

    Attributes:
        pinned: Addresses by host, from when the grant was made.
        dial: Makes a connection with one.
        tls: Verifies who answers.
        secrets: What is put in, by host.
    """

    pinned: Mapping[str, Sequence[str]]
    dial: Dial
    tls: SSLContext
    secrets: Mapping[str, Secret]


class EgressSession:
    """What serves one sandbox; see `EgressProxy.session`.

    Args:
        grant: What it may reach.
        outsides: How.
        meter: What it uses.
        record: What the trail is told.
    """

    def __init__(self, grant: EgressGrant, outsides: Outsides, meter: Meter, record: Record) -> None:
        self._grant = grant
        self._outsides = outsides
        self._meter = meter
        self._record = record
        self._limits = meter.limits
        self._count = 0
        self._now = 0

    def totals(self) -> Mapping[str, JsonValue]:
        """What was used so far, for the closing record of the effect."""
        return {
            "connections": self._meter.connected,
            "refused": dict(sorted(self._meter.refused.items())),
            "sent": self._meter.sent,
            "received": self._meter.received,
            "bytes_per_s": self._limits.bytes_per_s,
            "pinned": {host: list(found) for host, found in self._outsides.pinned.items()},
        }

    async def serve(self, stream: ByteStream) -> None:
        """Serve one connection of the sandbox until it ends; nothing that it says or does raises."""
        self._now += 1
        inside = Inside(stream, self._limits)
        try:
            async with stream:
                try:
                    await self._serve(inside)
                except Cut as cut:
                    await inside.refuse(cut.refusal)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            return  # the sandbox has hung up
        finally:
            self._now -= 1

    async def _serve(self, inside: Inside) -> None:
        self._count += 1
        if self._count > self._limits.connections:  # counted alone: who asks a million times fills no trail
            await self._refuse(TOO_MANY, silent=self._count > self._limits.connections + 1)
        if self._now > self._limits.at_once:
            await self._refuse(TOO_MANY)
        head = await self._head(inside)
        route = judge(self._grant, head)
        place: dict[str, JsonValue] = {"host": head.host, "port": head.port or 0}
        if isinstance(route, Refusal):
            await self._refuse(route, place)
        await self._connect(inside, head, route)

    async def _head(self, inside: Inside) -> Head:
        try:
            with anyio.fail_after(self._limits.head_s):
                raw = await inside.head()
        except TimeoutError:
            await self._refuse(TOO_LATE)
        head = raw if isinstance(raw, Refusal) else read_head(raw)
        if isinstance(head, Refusal):
            await self._refuse(head)
        return head

    async def _refuse(
        self, refusal: Refusal, place: Mapping[str, JsonValue] | None = None, *, silent: bool = False
    ) -> NoReturn:
        """Write it down, then say it."""
        self._meter.refused[refusal.rule] += 1
        if not silent:
            await self._record.write(AuditEventType.EGRESS_REFUSED, {"rule": refusal.rule, **(place or {})})
        raise Cut(refusal)

    async def _connect(self, inside: Inside, head: Head, route: Route) -> None:
        endpoint, use = route.endpoint, Use()
        addresses = self._outsides.pinned[endpoint.host]
        facts: dict[str, JsonValue] = {"host": endpoint.host, "port": endpoint.port, "address": addresses[0]}
        how: dict[str, JsonValue] = {"tunnel": route.tunnel, "tls": route.tls, "method": head.method}
        if route.credential is not None:
            how["credential"] = route.credential.path
        self._meter.connected += 1
        rule = ""
        try:
            await self._record.write(AuditEventType.EGRESS_CONNECTED, {**facts, **how})  # else there is none
            stream, facts["address"] = await self._dial(route, addresses)
            try:
                outside = Outside(stream, self._meter, use)
                if route.tunnel:
                    await tunnel(inside, outside, self._limits.idle_s)
                else:
                    await forward(inside, outside, head, route, self._outsides.secrets.get(endpoint.host))
            finally:
                await _hang_up(stream, politely=route.tunnel)
        except Cut as cut:
            rule = cut.refusal.rule
            self._meter.refused[rule] += 1
            raise
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream):
            rule = "egress.broken"  # by either side, in the middle
            raise Cut(Refusal(rule, HTTPStatus.BAD_GATEWAY)) from None
        except BaseException:
            rule = "egress.cancelled"  # the sandbox ends
            raise
        finally:
            await self._record.write_end({**facts, "sent": use.sent, "received": use.received, "rule": rule})

    async def _dial(self, route: Route, addresses: Sequence[str]) -> tuple[ByteStream, str]:
        name = route.endpoint.host if route.tls else None
        for address in addresses:
            with anyio.move_on_after(
                self._limits.dial_s / len(addresses)
            ):  # one that is silent leaves time for the next
                try:
                    stream = await self._outsides.dial(address, route.endpoint.port, name, self._outsides.tls)
                except (OSError, SSLError, anyio.BrokenResourceError, anyio.EndOfStream):
                    continue
                return stream, address
        raise Cut(UNREACHABLE)


async def _hang_up(stream: ByteStream, *, politely: bool) -> None:
    """Close a connection; what was said in a tunnel still goes out, and nobody waits for the last word of TLS."""
    if not politely:
        await anyio.aclose_forcefully(stream)
        return
    with anyio.CancelScope(shield=True):
        await stream.aclose()
