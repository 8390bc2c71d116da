"""Drivers by tier, and no other."""

import pytest

from symbi.errors import InternalError, SandboxUnavailable
from symbi.sandbox.pool import WHAT_TO_INSTALL, Sandboxes
from symbi.types import SecurityTier


class Driver:
    def __init__(self, tier):
        self.tier = tier


def test_a_driver_is_found_by_its_tier():
    driver = Driver(SecurityTier.TIER1)
    pool = Sandboxes({SecurityTier.TIER1: driver})
    assert pool.driver_for(SecurityTier.TIER1) is driver
    assert pool.tiers == {SecurityTier.TIER1}


@pytest.mark.parametrize(
    ("missing", "package"),
    [(SecurityTier.INTERPRETER, "pydantic-monty"), (SecurityTier.TIER1, "docker.io"), (SecurityTier.TIER2, "runsc")],
)
def test_a_missing_tier_is_an_error_that_says_what_to_install_whatever_else_is_there(missing, package):
    others = {tier: Driver(tier) for tier in SecurityTier if tier is not missing}
    with pytest.raises(SandboxUnavailable, match=f"`{missing}` is not available here; .*`{package}`") as caught:
        Sandboxes(others).driver_for(missing)
    assert caught.value.fields == {"tier": missing.value}


def test_every_tier_says_what_to_install():
    assert set(WHAT_TO_INSTALL) == set(SecurityTier)


def test_a_driver_under_another_tier_is_refused():
    with pytest.raises(InternalError, match="`interpreter` stands under tier `gvisor`"):
        Sandboxes({SecurityTier.TIER2: Driver(SecurityTier.INTERPRETER)})


def test_what_the_caller_does_to_its_mapping_later_changes_nothing():
    drivers = {}
    pool = Sandboxes(drivers)
    drivers[SecurityTier.TIER1] = Driver(SecurityTier.TIER1)
    with pytest.raises(SandboxUnavailable):
        pool.driver_for(SecurityTier.TIER1)
