"""Trails in memory, for reports."""

import pytest

from symbi.audit.checkpoint import Checkpoint, origin_of, seal_checkpoint
from symbi.compliance.evidence import listed
from symbi.compliance.report import Trail
from symbi.crypto.merkle import leaf_hash, node_hash, root_of
from symbi.testing.trail import build_trail, fixed_signing_key


class Built:
    """A trail in memory with its tree and checkpoint."""

    def __init__(self, drafts, key=None):
        self.key = key or fixed_signing_key()
        built = build_trail(drafts, key=self.key)
        self.events, self.stored = built.parsed, built.events
        self._leaves = [leaf_hash(one.record) for one in built.events]
        last = self.events[-1]
        self.root = root_of(len(self.events), self.node)
        at = Checkpoint(
            origin_of(self.events[0].event_id), len(self.events), self.root, last.chain_hash, last.timestamp
        )
        self.note = seal_checkpoint(at, self.key)
        keys = {self.key.key_id: self.key.verifying_key()}
        evidence = listed(self.events, self.note, self.node)
        self.trail = Trail(evidence, keys, self.events[0].timestamp, last.timestamp)

    def node(self, level, index):
        if level == 0:
            return self._leaves[index]
        return node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def event_at(self, sequence):
        return self.events[sequence - 1]


@pytest.fixture(scope="session")
def build():
    return Built
