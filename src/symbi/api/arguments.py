"""Which arguments each operation takes: one that it does not know is refused by its name, and nothing happens.

What is passed over in silence would be meant all the same: a bound that does not bound, a choice that chooses nothing.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from symbi.compliance.recorded import FACTS, OPERATION
from symbi.errors import InputError, did_you_mean
from symbi.types import JsonValue

MAX_NAMED: Final = 5  # of unknown arguments
MAX_NAME_CHARS: Final = 64

_VOTE: Final = "id digest reason signature key_id"
_MEMORIES: Final = "agent kind tags text limit"

ARGUMENTS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        name: frozenset(words.split())
        for name, words in {
            "agents.list": "state after limit",
            "agents.resume": "agent all",
            "agents.send": "agent inputs texts labels subjects after_s expires_s",
            "agents.show": "agent",
            "agents.spawn": "agent count",
            "agents.stop": "agent all",
            "agents.suspend": "agent",
            "agents.usage": "by order limit",
            "approvals.approve": _VOTE,
            "approvals.deny": _VOTE,
            "approvals.list": "all",
            "approvals.show": "id",
            "audit.anchor": "tsa certificate",
            "audit.rotate-key": "",
            "audit.witnessed": "note witness",
            "budget.raise": "run amounts",
            "budget.show": "of",
            "bus.stats": "",
            "bus.tail": "after limit",
            "clients.add": "client digest",
            "clients.revoke": "client",
            "dlq.drop": "letter agent kind reason",
            "dlq.replay": "letter agent kind",
            "effects.list": "",
            "effects.settle": "id happened reason result",
            "kb.add": "collection path name after moved",
            "kb.answer": "question collection k purpose extract",
            "kb.list": "collection purpose after_collection after_source",
            "kb.rm": "collection sources all",
            "kb.search": "question collection k purpose",
            "kb.stats": "purpose",
            "kb.verify": "collection repair purpose",
            "keys.destroy": "agent",
            "keys.list": "",
            "keys.rotate": "agent",
            "memory.export": f"{_MEMORIES} after",
            "memory.forget": f"{_MEMORIES} ids all",
            "memory.show": _MEMORIES,
            "memory.verify": "repair",
            "policy.set": "paths",
            "privacy.erase": "subject reason values include_open",
            "privacy.export": "subject reason",
            "privacy.hold": "subject reason",
            "privacy.list": "",
            "privacy.release": "subject reason",
            "privacy.scan": "subject values",
            "runs.compact": "days",
            "system.status": "",
            "tools.accept": "tool digest older",
            "tools.reject": "tool digest reason",
            "tools.revoke": "tool key reason",
            "tools.server": "server accept digest",
            "tools.servers": "",
        }.items()
    }
    | {OPERATION: FACTS}
)
"""By operation; one that is not here takes none."""


def unknown_argument(operation: str, arguments: Mapping[str, JsonValue]) -> InputError | None:
    """The refusal of what an operation does not take, by its name; None where it takes all that it is given."""
    known = ARGUMENTS.get(operation, frozenset())
    unknown = sorted(set(arguments) - known)
    if not unknown:
        return None
    named = ", ".join(f"`{one[:MAX_NAME_CHARS]}`" for one in unknown[:MAX_NAMED])
    more = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
    takes = ", ".join(f"`{one}`" for one in sorted(known)) or "none"
    hint = did_you_mean(unknown[0], known) or f"it takes {takes}"
    return InputError(f"`{operation}` takes no argument {named}{more}", code="control.argument", hint=hint)


def known_of(operation: str, arguments: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What an operation takes of some arguments: nothing else is shown on the trail."""
    known = ARGUMENTS.get(operation, frozenset())
    return {name: value for name, value in arguments.items() if name in known}
