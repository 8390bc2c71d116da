"""The register of persons: who may agree to what, and whether what they said still counts. Values only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from symbi.crypto.signing import VerifyingKey
from symbi.errors import ConfigError, SignatureInvalid
from symbi.guard.approval import ApprovalRecord, Vote, statement
from symbi.policy.approval import Demand

VOTE_DOMAIN: Final = "approval.vote"
"""The domain of a person's signature."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may agree.

    Attributes:
        name: As registered.
        uid: Number of the operating-system user that acts for the person through the control socket; None for none.
        user: Its name.
        key: Public key that signs for the person; None for none.
        groups: Groups that policies may ask for.
        accounts: Further names by which `owner` of an agent may call the person.
    """

    name: str
    uid: int | None = None
    user: str = ""
    key: VerifyingKey | None = None
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()

    def is_called(self, name: str) -> bool:
        """Whether a name is one of the person's."""
        return name.casefold() in {one.casefold() for one in (self.name, self.user, *self.accounts) if one}


class People:
    """The registered persons.

    Args:
        persons: Them.

    Raises:
        ConfigError: Two of them are the same: one name, one key, one operating-system user.
    """

    def __init__(self, persons: Sequence[Person] = ()) -> None:
        self._by_name = {person.name: person for person in persons}
        keys = [person.key for person in persons if person.key is not None]
        uids = [person.uid for person in persons if person.uid is not None]
        names = [person.name.casefold() for person in persons]
        for what, all_of in (("name", names), ("key", keys), ("operating-system user", uids)):
            if len(set(all_of)) != len(all_of):
                msg = f"two persons of `approvals.people` have the same {what}: one person would count as two"
                raise ConfigError(msg, code="config.people", hint="give each person a key or user of their own")

    def __len__(self) -> int:
        return len(self._by_name)

    def named(self, name: str) -> Person | None:
        """The person of a name."""
        return self._by_name.get(name)

    def of_uid(self, uid: int) -> Person | None:
        """The person for whom an operating-system user acts."""
        return next((person for person in self._by_name.values() if person.uid == uid), None)

    def of_key(self, key_id: str) -> Person | None:
        """The person whose key has an id."""
        return next((p for p in self._by_name.values() if p.key is not None and p.key.key_id == key_id), None)

    def asked_by(self, demand: Demand) -> list[Person]:
        """Everybody who can answer a demand, the requester included."""
        named = [person for person in self._by_name.values() if demand.who in {person.name, *person.groups}]
        if demand.who:
            return named
        if demand.plain:
            word = demand.text.strip()
            named = [person for person in self._by_name.values() if word in {person.name, *person.groups}]
            if named:
                return named  # the whole text is the name of a person or group: they are meant, and nobody else
        return list(self._by_name.values())

    def able(self, demand: Demand, owner: str) -> list[Person]:
        """Everybody who can agree to a demand of an agent with this owner."""
        return [person for person in self.asked_by(demand) if not person.is_called(owner)]

    def missing(self, demands: Sequence[Demand], owner: str) -> str | None:
        """Why nobody could ever agree, or None."""
        for demand in demands:
            able = len(self.able(demand, owner))
            if able < demand.people:
                asked = f"`{demand.who or demand.text}`"
                return f"{asked} asks {demand.people} to agree, and {able or 'nobody'} registered can"
        return None

    def counts(self, record: ApprovalRecord, vote: Vote) -> bool:
        """Whether a vote is that of a registered person, as the register stands now."""
        person = self._by_name.get(vote.person)
        if person is None:
            return False
        if not vote.signature:
            return vote.uid is not None and vote.uid == person.uid
        if person.key is None:
            return False
        try:
            said = statement(record.id, record.digest, agrees=vote.agrees, reason=vote.reason)
            person.key.verify(VOTE_DOMAIN, said, bytes.fromhex(vote.signature))
        except (SignatureInvalid, ValueError):
            return False
        return True

    def unmet(self, record: ApprovalRecord, owner: str) -> list[str]:
        """What is still to be agreed to, one line for each demand; nothing where the approval holds.

        Args:
            record: With the votes so far; those that count no more are left out.
            owner: Of the agent that asked, who never agrees for itself.
        """
        agreed = {vote.person for vote in record.votes if vote.agrees and self.counts(record, vote)}
        demands = record.demands()
        lines: list[str] = [] if demands else ["what was asked is not known"]
        for demand in demands:
            fitting = {person.name for person in self.able(demand, owner)} & agreed
            if len(fitting) < demand.people:
                who = demand.who or "any registered person"
                lines.append(f"{demand.people - len(fitting)} more of {who}")
        return lines
