"""A person replaces the operator's policies of a runtime that is alive."""

from collections.abc import Mapping, Sequence

from symbi.errors import InputError
from symbi.guard.action import ConfigurePolicies
from symbi.guard.gate import Guard
from symbi.runtime.policies import Cause, PolicyBook, content_of
from symbi.runtime.policy_watch import PolicyWatch
from symbi.types import JsonValue, Principal


async def set_policies(
    guard: Guard, book: PolicyBook, watch: PolicyWatch, principal: Principal, paths: Sequence[str]
) -> Mapping[str, JsonValue]:
    """Read policy files, ask the gate, and put them in force in place of the operator's; they are watched from here on.

    It lasts as long as the runtime: at the next start `policy.paths` counts again.

    Args:
        guard: The gate; the set that is in force decides.
        book: Who changes the set.
        watch: What is watched.
        principal: Who asks.
        paths: Files and folders, as `policy.paths`.

    Returns:
        Both versions, and the number of policies.

    Raises:
        PolicyDenied: Policy does not let it.
        PolicySyntaxError, InputError, SignatureInvalid: The policies are refused, and the old ones stay.
        StoreUnavailable: It cannot be recorded; likewise.
    """
    if not paths:
        msg = "no path of policies is named"
        raise InputError(msg, code="input.usage", hint="name a folder; an empty one permits nothing")
    reading = await watch.read(paths, may_be_absent=False)
    files = sum(len(bundle.files) for bundle in reading.bundles)
    action = ConfigurePolicies(principal=principal, paths=tuple(paths), digest=content_of(reading.bundles), files=files)
    previous = book.current.version
    async with guard.enforce(action) as permit:
        guard.authority.redeem(permit, ConfigurePolicies)
        await watch.use(reading, Cause.OPERATOR)
        current = book.current
        return permit.observe(
            {"version": current.version, "previous": previous, "policies": len(current.policies), "files": files}
        )
