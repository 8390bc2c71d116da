"""Whatever is taken and given back in whatever order, no node ever gives more than it has."""

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from symbi.errors import InputError
from symbi.runtime.resources import PERMILLE, Amount, Node, NodeId, Placement, ResourcePool, Strategy
from symbi.types import Priority

SIZES = st.integers(0, 40)
AMOUNTS = st.builds(Amount, SIZES, SIZES, SIZES, SIZES)


class Pool(RuleBasedStateMachine):
    """The pool against plain lists of what each node gave."""

    placements = Bundle("placements")

    def __init__(self):
        super().__init__()
        self.pool = None

    @rule(capacities=st.lists(AMOUNTS, min_size=1, max_size=4), strategy=st.sampled_from(Strategy))
    def begin(self, capacities, strategy):
        if self.pool is None:
            nodes = [Node.empty(NodeId(str(index)), capacity) for index, capacity in enumerate(capacities)]
            self.pool = self.initial = ResourcePool(tuple(nodes), strategy)
            self.taken = {node.id: [] for node in nodes}

    @rule(target=placements, claim=AMOUNTS, priority=st.sampled_from(Priority))
    def allocate(self, claim, priority):
        if self.pool is None:
            return None
        kept = 0
        if self.pool.strategy is Strategy.PRIORITY_BASED and priority is not Priority.CRITICAL:
            kept = self.pool.critical_share
        try:
            answer = self.pool.allocate(claim, priority)
        except InputError:
            assert not any(self.fits(claim, node, kept, ()) for node in self.initial.nodes)
            return None
        if answer is None:
            assert not any(self.fits(claim, node, kept, self.taken[node.id]) for node in self.initial.nodes)
            return None
        self.pool, placement = answer
        node = next(node for node in self.initial.nodes if node.id == placement.node)
        assert self.fits(claim, node, kept, self.taken[node.id])
        self.taken[placement.node].append(claim)
        return placement

    @rule(placement=consumes(placements))
    def release(self, placement):
        if placement is not None:
            self.pool = self.pool.release(placement)
            self.taken[placement.node].remove(placement.claim)

    @staticmethod
    def fits(claim, node, kept, taken):
        sums = [sum(parts) for parts in zip(claim.parts, *(other.parts for other in taken), strict=True)]
        return all(
            total + capacity * kept // PERMILLE <= capacity
            for total, capacity in zip(sums, node.capacity.parts, strict=True)
        )

    @invariant()
    def nothing_is_given_twice_and_nothing_is_lost(self):
        if self.pool is None:
            return
        for node in self.pool.nodes:
            taken = [sum(parts) for parts in zip(*(claim.parts for claim in self.taken[node.id]), strict=True)]
            for free, capacity, used in zip(node.free.parts, node.capacity.parts, taken or [0] * 4, strict=True):
                assert free >= 0
                assert free + used == capacity

    def teardown(self):
        if self.pool is None:
            return
        for name, claims in self.taken.items():
            for claim in claims:
                self.pool = self.pool.release(Placement(name, claim))
        assert self.pool == self.initial


TestPool = Pool.TestCase
