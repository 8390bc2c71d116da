"""Conditions of a permit, carried out on the action before it happens."""

from dataclasses import replace

from symbi.errors import PolicyDenied
from symbi.guard.action import Action, ExecuteCode, InvokeTool
from symbi.policy.obligations import Obligations


def carry_out(action: Action, obligations: Obligations) -> Action:
    """The effective action: redacted, capped, with the tier raised and the time shortened.

    Raises:
        PolicyDenied: A condition cannot be carried out on this kind of action.
        InputError: A cap on something that is not a number.
    """
    match action:
        case InvokeTool():
            if obligations.tier is not None:
                msg = f"a policy asks for tier `{obligations.tier}`, and tool servers run outside the sandbox tiers"
                raise PolicyDenied(msg, code="policy.condition", hint="put @tier on permits for ExecuteCode")
            return replace(
                action,
                values=obligations.apply_arguments(action.values),
                timeout_s=obligations.limit_timeout(action.timeout_s),
            )
        case ExecuteCode():
            _refuse_changes(action, obligations)
            return replace(
                action,
                tier=obligations.raise_tier(action.tier),
                timeout_s=obligations.limit_timeout(action.timeout_s),
            )
        case _:
            _refuse_changes(action, obligations)
            if obligations.tier is not None or obligations.timeout_s is not None:
                msg = f"a policy sets a tier or time-out that `{action.kind}` cannot obey"
                raise PolicyDenied(msg, code="policy.condition")
            return action


def _refuse_changes(action: Action, obligations: Obligations) -> None:
    if obligations.redact or obligations.caps:
        msg = f"a policy redacts or caps arguments, and `{action.kind}` has none that could be changed"
        raise PolicyDenied(msg, code="policy.condition", hint="put @redact and @cap on permits for InvokeTool")
