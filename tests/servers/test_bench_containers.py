"""LIFE-5 on a real engine: a sandbox that was ready starts in a fraction of the time of one that was not."""

import anyio
import pytest

from symbi.bench.containers import containers
from symbi.bench.measure import Scale
from symbi.testing.sandbox import RUNTIMES
from symbi.types import SecurityTier

pytestmark = [pytest.mark.servers, pytest.mark.timeout(600)]


def test_a_warm_start_is_a_fraction_of_a_cold_one_in_both_tiers():
    rows = {row.metric: row for row in anyio.run(containers, Scale(0.1))}
    for tier in (SecurityTier.TIER1, SecurityTier.TIER2):
        cold, warm = (rows[f"start-up in a {how} `{tier}` sandbox"] for how in ("cold", "warm"))
        assert 0 < warm.p50 < cold.p50 / 3
        assert 1 < rows[f"memory of an idle `{tier}` sandbox"].value < 100
        runs = [cold, warm, *(rows[f"whole run in a {how} `{tier}` sandbox"] for how in ("cold", "warm"))]
        plain = rows[f"plain `docker run` with {RUNTIMES[tier]}"]
        assert all(0 < row.p50 <= row.p95 <= row.p99 for row in [*runs, plain])
    assert {row.id for row in rows.values()} == {"LIFE-5"}


def test_a_mere_look_starts_no_engine():
    assert anyio.run(containers, Scale(0.01)) == []
