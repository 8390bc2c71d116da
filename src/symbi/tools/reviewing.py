"""What a person does about tools: looks at what waits, accepts, rejects, and revokes tools and keys.

Each is bound to the digest of what was shown, is on the trail in the transaction that keeps it, and holds from then on in
the runtime that is alive: a call that is at work ends as it began, a later one is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import anyio.to_thread

from symbi.audit.event import AuditEventType, Draft
from symbi.clock import rfc3339
from symbi.errors import InputError, PinMismatch, SignatureInvalid
from symbi.tools.catalog import Catalog
from symbi.tools.port import Pin, Review, ReviewKind, ReviewState, ToolDefinition
from symbi.tools.review import REJECTED, REVOKED_KEY, REVOKED_TOOL, covered_definition
from symbi.tools.schemapin import digest_of, fingerprint
from symbi.tools.text import cut, printable, shown_name
from symbi.tools.verified import VerifiedTool
from symbi.types import JsonValue, Principal

MAX_REASON_CHARS: Final = 500
FINGERPRINT_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Shown:
    """What a person is shown of a tool.

    Attributes:
        name: `server.tool`.
        pin: What was accepted, or None.
        review: What waits or was said, or None.
    """

    name: str
    pin: Pin | None
    review: Review | None


class ToolReviews:
    """Reviews of the tools of one runtime.

    Args:
        catalog: Its tools.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._store = catalog.verifier.store
        self._log = catalog.verifier.log
        self._clock = catalog.verifier.clock

    async def accept(self, name: str, digest: str, principal: Principal, *, older: bool = False) -> VerifiedTool:
        """Take a tool as it was shown; a server that is not connected is, through the gate, for it must still offer that.

        Args:
            name: `server.tool`.
            digest: Of what was shown.
            principal: For whom it is connected.
            older: Also where it says that it is an older version than the pinned one.

        Raises:
            PinMismatch: Its server offers something else by now; or it is older, and that is not meant.
            InputError: There is no such tool, or it cannot be used.
            SymbiError: As `Catalog.ready` and `Catalog.pin`.
        """
        server = name.partition(".")[0]
        if not self._catalog.is_connected(server):
            await self._catalog.ready(server, principal)
        tool = await self._catalog.pin(name, digest=digest, older=older, by=principal.owner)
        await self._catalog.changed()
        return tool

    async def reject(self, name: str, digest: str, principal: Principal, reason: str = "") -> Review:
        """Refuse exactly what was shown, without asking again.

        Raises:
            InputError: Nothing of the tool waits.
            PinMismatch: Something else waits by now.
            StoreUnavailable: It cannot be kept.
        """

        def work() -> tuple[Review, list[Draft]]:
            found = self._store.get_review(ReviewKind.TOOL, name)
            if found is None or found.state not in {ReviewState.WAITING, ReviewState.REJECTED}:
                msg = f"nothing of tool `{shown_name(name)}` waits for a review"
                raise InputError(msg, code="tool.review", hint=f"`symbi tools revoke {shown_name(name)}` refuses it")
            if found.digest != digest:
                msg = f"tool `{shown_name(name)}` is not what was shown any more"
                raise PinMismatch(msg, hint="look at it again", tool=shown_name(name))
            return self._kept(found, ReviewState.REJECTED, principal, reason or found.reason)

        review, _ = await self._log.transact(work)
        msg = f"tool `{shown_name(name)}` as it is was rejected on {review.since[:10]}"
        self._catalog.withdraw(name, PinMismatch(msg, code=REJECTED, tool=shown_name(name)))
        await self._catalog.changed()
        return review

    async def revoke(self, name: str, principal: Principal, reason: str = "") -> Review:
        """Refuse a tool from here on, whatever it is or becomes, until somebody accepts it anew.

        Raises:
            InputError: Nothing is known of such a tool.
            StoreUnavailable: It cannot be kept.
        """

        def work() -> tuple[Review, list[Draft]]:
            found, pin = self._store.get_review(ReviewKind.TOOL, name), self._store.get_pin(name)
            if found is None and pin is None and not self._offers(name):
                msg = f"nothing is known of a tool `{shown_name(name)}`"
                raise InputError(msg, code="tool.unknown", hint="`symbi tools list` shows the tools there are")
            digest, definition = (pin.digest, pin.definition) if pin else ("", "")
            if found is not None:
                digest, definition = found.digest, found.definition
            blank = Review(ReviewKind.TOOL, name, ReviewState.REVOKED, digest, definition, "", "")
            return self._kept(blank, ReviewState.REVOKED, principal, reason)

        review, _ = await self._log.transact(work)
        msg = f"tool `{shown_name(name)}` was revoked on {review.since[:10]}"
        self._catalog.withdraw(name, PinMismatch(msg, code=REVOKED_TOOL, tool=shown_name(name)))
        await self._catalog.changed()
        return review

    async def revoke_key(self, key: str, principal: Principal, reason: str = "") -> Sequence[str]:
        """Refuse every tool that a key has signed, from here on.

        Args:
            key: Its fingerprint, as pins name it, or with `sha256:` before it, as documents do.
            principal: Who says so.
            reason: Why.

        Returns:
            The tools that are refused by it at once.

        Raises:
            InputError: It is no fingerprint.
            StoreUnavailable: It cannot be kept.
        """
        key = key.removeprefix("sha256:").lower()
        if len(key) != FINGERPRINT_CHARS or not set(key) <= set("0123456789abcdef"):
            msg = f"`{shown_name(key)}` is no fingerprint of a key"
            raise InputError(msg, code="tool.key", hint="`symbi tools list --json` shows those of the pinned tools")

        def work() -> tuple[Review, list[Draft]]:
            blank = Review(ReviewKind.KEY, key, ReviewState.REVOKED, "", "", "", "")
            return self._kept(blank, ReviewState.REVOKED, principal, reason)

        review, _ = await self._log.transact(work)
        names = tuple(tool.ref.name for tool in self._catalog.tools if tool.key and fingerprint(tool.key) == key)
        for name in names:
            msg = f"tool `{name}` is signed with a key that was revoked on {review.since[:10]}"
            self._catalog.withdraw(name, SignatureInvalid(msg, code=REVOKED_KEY, tool=name))
        msg = f"the tool is signed with a key that was revoked on {review.since[:10]}"
        self._catalog.withdraw(key, SignatureInvalid(msg, code=REVOKED_KEY))
        if names:
            await self._catalog.changed()
        return names

    async def decide_server(self, name: str, digest: str, principal: Principal, *, accept: bool) -> Review:
        """Let a server that was found in a file be connected as it was shown, or refuse exactly that.

        Raises:
            InputError: No file names it.
            PinMismatch: What the runtime has of it is not what was shown.
            StoreUnavailable: It cannot be kept.
        """
        link = self._catalog.link(name)
        if not link.source:
            msg = f"tool server `{name}` is configured, and not found in a file"
            raise InputError(msg, code="tool.server", hint="nothing of it waits")
        if link.digest != digest:
            msg = f"tool server `{name}` is not what was shown"
            raise PinMismatch(
                msg, hint="a runtime that is alive knows its servers as they were at its start", server=name
            )
        state = ReviewState.ACCEPTED if accept else ReviewState.REJECTED

        def work() -> tuple[Review, list[Draft]]:
            blank = Review(ReviewKind.SERVER, name, state, digest, link.definition, "", "")
            return self._kept(blank, state, principal, f"it was found in {link.source}")

        review, _ = await self._log.transact(work)
        if not accept:
            msg = f"tool server `{name}` was rejected on {review.since[:10]}"
            await self._catalog.take_out(name, PinMismatch(msg, code=REJECTED, server=name))
        return review

    async def against(self, server: str, definitions: Sequence[ToolDefinition]) -> Mapping[str, str]:
        """What stands against each of a connected server's tools, beside its signature, by name.

        Args:
            server: Its name.
            definitions: What it offered; it may offer something else by now.

        Raises:
            StoreUnavailable: What people have said cannot be read.
        """
        offered = {f"{server}.{one.name}": one for one in definitions}
        quarantined = self._catalog.quarantined
        found = {
            name: quarantined[shown_name(name)].message
            for name in offered
            if not isinstance(quarantined.get(shown_name(name)), SignatureInvalid | None)
        }

        def read() -> list[tuple[str, Pin | None, Review | None]]:
            return [
                (name, self._store.get_pin(name), self._store.get_review(ReviewKind.TOOL, name)) for name in offered
            ]

        for name, pin, review in await self._log.read(read):
            if name in found:
                continue
            digest = await anyio.to_thread.run_sync(lambda one: digest_of(covered_definition(one)), offered[name])
            if review is not None and review.state is ReviewState.REVOKED:
                found[name] = f"it was revoked on {review.since[:10]}"
            elif review is not None and review.state is ReviewState.REJECTED and review.digest == digest:
                found[name] = f"as it is, it was rejected on {review.since[:10]}"
            elif pin is not None and pin.digest != digest:
                found[name] = f"it has changed since it was pinned on {pin.pinned_at[:10]}"
        return found

    def _offers(self, name: str) -> bool:
        return name in self._catalog.quarantined or any(tool.ref.name == name for tool in self._catalog.tools)

    def _kept(self, found: Review, state: ReviewState, principal: Principal, reason: str) -> tuple[Review, list[Draft]]:
        """A review as it is kept, with its event. On the store's thread."""
        said = cut(printable(reason), MAX_REASON_CHARS)
        since = rfc3339(self._clock.now_ns())
        review = Review(found.kind, found.name, state, found.digest, found.definition, said, since)
        self._store.put_review(review)
        facts: dict[str, JsonValue] = {
            found.kind.value: shown_name(found.name), "state": state.value, "digest": found.digest, "by": principal.owner,
            "reason": said,
        }  # fmt: skip
        return review, [Draft(AuditEventType.TOOL_REVIEWED, principal.agent, facts)]


def shown_tools(pins: Sequence[Pin], reviews: Sequence[Review]) -> Mapping[str, Shown]:
    """Every tool of which there is a pin or a review, by name."""
    pinned = {pin.tool: pin for pin in pins}
    said = {review.name: review for review in reviews if review.kind is ReviewKind.TOOL}
    names = sorted(pinned.keys() | said.keys())
    return {name: Shown(name, pinned.get(name), said.get(name)) for name in names}


__all__ = ["Pin", "Review", "ReviewKind", "ReviewState", "Shown", "ToolReviews", "shown_tools"]
