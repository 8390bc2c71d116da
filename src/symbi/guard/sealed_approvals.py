"""The approvals port with facts, arguments and votes sealed in the store; whoever uses it sees them open."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from symbi.errors import ConfigError, DecryptionFailed
from symbi.guard.approval import ApprovalRecord, ApprovalState, ApprovalStore, Vote
from symbi.guard.confidential import DAMAGED_TEXT, ERASED_TEXT, lost_text, open_column
from symbi.guard.sealed import is_sealed, read_sealed
from symbi.guard.vault import Vault, place

_LOST: Final = {
    ERASED_TEXT: "what it is about was erased",
    DAMAGED_TEXT: "what is sealed in it was altered, or moved from elsewhere",
}


class SealedApprovals:
    """`symbi.guard.approval.ApprovalStore` over another.

    Args:
        store: Keeps the records.
        vault: Opens them.
    """

    def __init__(self, store: ApprovalStore, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def put_approval(self, record: ApprovalRecord) -> None:
        """Insert a record."""
        self._store.put_approval(closed_approval(record))

    def move_approval(self, record: ApprovalRecord, was: ApprovalRecord) -> None:
        """Write a record back."""
        self._store.move_approval(closed_approval(record), was)

    def get_approval(self, approval_id: str) -> ApprovalRecord | None:
        """One record."""
        found = self._store.get_approval(approval_id)
        return None if found is None else opened_approval(found, self._vault)

    def approval_at(self, place: str) -> ApprovalRecord | None:
        """The record that is asked for at a place."""
        found = self._store.approval_at(place)
        return None if found is None else opened_approval(found, self._vault)

    def approvals(self, states: Sequence[ApprovalState], limit: int) -> Sequence[ApprovalRecord]:
        """The newest records in some states."""
        return [opened_approval(record, self._vault) for record in self._store.approvals(states, limit)]


def closed_approval(record: ApprovalRecord) -> ApprovalRecord:
    """A record as it is kept."""
    if not record.keys:
        return record
    keys, name = record.keys, record.id
    return replace(
        record,
        facts=keys.seal(record.facts, place("approvals", "facts", name)),
        shown=keys.seal_optional(record.shown, place("approvals", "shown", name)),
        sealed_votes=keys.seal(msgspec.json.encode(record.votes), place("approvals", "votes", name)),
        votes=(),
    )


def opened_approval(record: ApprovalRecord, vault: Vault | None) -> ApprovalRecord:
    """A record as people read it; where it does not open, `lost` says why, and it is about nothing any more."""
    if not is_sealed(record.facts):
        return record
    name, votes = record.id, record.sealed_votes
    try:
        facts = open_column(vault, record.facts, place("approvals", "facts", name))
        shown = open_column(vault, record.shown, place("approvals", "shown", name))
        said = b"[]" if votes is None else open_column(vault, votes, place("approvals", "votes", name))
        assert facts is not None
        assert said is not None
        assert vault is not None
        keys = vault.keys_of(read_sealed(record.facts).keys)
    except (DecryptionFailed, ConfigError) as error:
        why = _LOST.get(lost_text(error), "what it is about is sealed, and its key is not at hand")
        return replace(record, facts=b"", shown=None, votes=(), sealed_votes=None, lost=why)
    return replace(
        record,
        facts=facts,
        shown=shown,
        votes=msgspec.json.decode(said, type=tuple[Vote, ...]),
        sealed_votes=None,
        keys=keys,
    )
