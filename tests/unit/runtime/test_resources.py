"""Claims on nodes: exact units, three strategies, and no room given twice."""

import pytest

from symbi.errors import InputError, InternalError
from symbi.runtime.resources import (
    NOTHING,
    Amount,
    Node,
    NodeId,
    Placement,
    ResourcePool,
    Strategy,
    amount_of,
)
from symbi.types import Priority, ResourceLimits


def node(name, memory_mib=1000, cpu_milli=1000, taken=NOTHING):
    capacity = Amount(memory_mib, cpu_milli)
    return Node(NodeId(name), capacity, capacity.minus(taken))


def placed(pool, claim, priority=Priority.NORMAL):
    return pool.allocate(claim, priority)[1].node


@pytest.mark.parametrize(
    ("cores", "milli"),
    [(0.1, 100), (0.3, 300), (1, 1000), (0.001, 1), (1.005, 1005), (2.675, 2675), (0.0, 0), (64, 64000)],
)
def test_fractions_of_cores_are_exact(cores, milli):
    assert amount_of(ResourceLimits(cpu_cores=cores)).cpu_milli == milli


@pytest.mark.parametrize("cores", [0.0005, 0.1 + 0.2, 1 / 3, float("inf"), float("nan")])
def test_cores_that_are_no_thousandths_are_refused_and_not_rounded(cores):
    with pytest.raises(InputError, match="are not a whole number of thousandths; give at most three decimals"):
        amount_of(ResourceLimits(cpu_cores=cores))


@pytest.mark.parametrize("limits", [ResourceLimits(memory_mb=-1), ResourceLimits(cpu_cores=-0.1)])
def test_negative_limits_are_refused(limits):
    with pytest.raises(InputError, match="negative"):
        amount_of(limits)


def test_ten_tenths_of_a_core_fill_it_and_come_back_whole():
    pool = ResourcePool((node("a"),))
    start = pool
    claim = amount_of(ResourceLimits(memory_mb=10, cpu_cores=0.1))
    placements = []
    for _ in range(10):
        pool, placement = pool.allocate(claim)
        placements.append(placement)
    assert pool.free.cpu_milli == 0
    assert pool.allocate(claim) is None
    for placement in placements:
        pool = pool.release(placement)
    assert pool == start


def test_an_allocation_leaves_the_pool_that_it_was_asked_of_as_it_was():
    pool = ResourcePool((node("a"),))
    after, _ = pool.allocate(Amount(400, 1))
    assert pool.free == Amount(1000, 1000)
    assert after.free == Amount(600, 999)
    assert after.capacity == pool.capacity


def test_the_three_strategies_place_the_same_claim_differently():
    nodes = (node("first", taken=Amount(300, 300)), node("tight", taken=Amount(800, 800)), node("wide"))
    claim = Amount(100, 100)
    assert placed(ResourcePool(nodes, Strategy.FIRST_FIT), claim, Priority.CRITICAL) == "first"
    assert placed(ResourcePool(nodes, Strategy.BEST_FIT), claim, Priority.CRITICAL) == "tight"
    assert placed(ResourcePool(nodes, Strategy.PRIORITY_BASED), claim, Priority.CRITICAL) == "wide"


def test_best_fit_keeps_a_whole_node_for_a_large_claim_where_first_fit_does_not():
    nodes = (node("a"), node("b", taken=Amount(500, 500)))
    outcomes = {}
    for strategy in (Strategy.FIRST_FIT, Strategy.BEST_FIT):
        pool, _ = ResourcePool(nodes, strategy).allocate(Amount(200, 200))
        outcomes[strategy] = pool.allocate(Amount(1000, 1000))
    assert outcomes[Strategy.FIRST_FIT] is None
    assert outcomes[Strategy.BEST_FIT] is not None


def test_priority_based_keeps_a_share_of_every_node_for_critical_claims():
    pool = ResourcePool((node("a"),), Strategy.PRIORITY_BASED, critical_share=200)
    pool, _ = pool.allocate(Amount(800, 800), Priority.HIGH)
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        assert pool.allocate(Amount(1, 1), priority) is None
    assert pool.allocate(Amount(200, 200), Priority.CRITICAL) is not None


def test_priority_based_packs_what_is_not_critical():
    pool = ResourcePool((node("a"), node("b", taken=Amount(500, 500))), Strategy.PRIORITY_BASED)
    assert placed(pool, Amount(100, 100), Priority.HIGH) == "b"


def test_every_part_of_a_claim_must_fit_one_node():
    pool = ResourcePool((node("a", memory_mib=100), node("b", cpu_milli=100)))
    with pytest.raises(InputError):
        pool.allocate(Amount(200, 200))
    assert placed(pool, Amount(50, 200)) == "a"
    assert placed(pool, Amount(200, 50)) == "b"


def test_no_room_now_is_not_an_error():
    pool, _ = ResourcePool((node("a"),)).allocate(Amount(1000, 0))
    assert pool.allocate(Amount(1, 0)) is None


def test_a_claim_that_can_never_be_met_is_refused_at_once_with_the_numbers():
    pool = ResourcePool((node("a"), node("b", memory_mib=500)))
    full = pool.allocate(Amount(1000, 1000))[0]
    for tried in (pool, full):
        with pytest.raises(
            InputError, match=r"a claim of 1001 MiB, .* the most that a node gives is 1000 MiB"
        ) as caught:
            tried.allocate(Amount(1001, 1))
        assert caught.value.code == "resources.impossible"
        assert caught.value.fields["claim"]["memory_mib"] == 1001
        assert caught.value.fields["largest"]["memory_mib"] == 1000


def test_what_is_kept_for_critical_claims_counts_as_impossible_for_others():
    pool = ResourcePool((node("a"),), Strategy.PRIORITY_BASED, critical_share=100)
    with pytest.raises(InputError, match="the most that a node gives is 900 MiB"):
        pool.allocate(Amount(901, 1), Priority.HIGH)
    assert placed(pool, Amount(901, 1), Priority.CRITICAL) == "a"


def test_a_pool_without_nodes_gives_nothing():
    with pytest.raises(InputError, match="can never be met"):
        ResourcePool(()).allocate(NOTHING)


def test_giving_back_twice_or_to_a_stranger_is_a_defect():
    pool = ResourcePool((node("a"),))
    taken, placement = pool.allocate(Amount(1, 1))
    assert taken.release(placement) == pool
    with pytest.raises(InternalError, match="more is given back to node `a`"):
        pool.release(placement)
    with pytest.raises(InternalError, match="no node `z`"):
        pool.release(Placement(NodeId("z"), Amount(1, 1)))


def test_a_pool_that_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="bear one id"):
        ResourcePool((node("a"), node("a")))
    with pytest.raises(InputError, match="permille"):
        ResourcePool((node("a"),), critical_share=1001)
