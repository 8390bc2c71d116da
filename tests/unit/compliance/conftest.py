"""Trails in memory, for reports."""

import pytest

from symbi.audit.event import AuditEventType as T
from symbi.audit.event import Draft
from symbi.compliance.evidence import listed
from symbi.compliance.report import Trail
from symbi.crypto.merkle import leaf_hash, node_hash
from symbi.testing.trail import build_trail
from symbi.types import SYSTEM_AGENT, AgentId


class Built:
    """A trail in memory with its tree and checkpoint."""

    def __init__(self, drafts, key=None):
        built = build_trail(drafts, key=key)
        self.events = built.parsed
        self._leaves = [leaf_hash(one.record) for one in built.events]
        evidence = listed(self.events, built.head, self.node)
        self.trail = Trail(evidence, built.keys, self.events[0].timestamp, self.events[-1].timestamp)

    def node(self, level, index):
        if level == 0:
            return self._leaves[index]
        return node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def event_at(self, sequence):
        return self.events[sequence - 1]


@pytest.fixture(scope="session")
def build():
    return Built


@pytest.fixture(scope="session")
def draft():
    def make(kind, agent="triage", run="run-1", **details):
        return Draft(T(kind), AgentId(agent), details, run)

    return make


CONFIGURATION = {
    "security.enforce_policies": "true",
    "security.audit_enabled": "true",
    "mcp.tool_verification": "strict",
    "limits.run_timeout_s": "300",
    "agents.triage.owner": "platform-team",
}


@pytest.fixture(scope="session")
def drafts(draft):
    """A start, a call of a tool that was allowed, and one that was denied."""
    policy = {"policies": [{"id": "triage-read", "file": "p.cedar", "line": 3}], "policy_version": "f" * 64}
    decided = {"label": "user/public", "arguments_digest": "a" * 64, "resource": "Tool::files.read", **policy}
    call = {"action": "InvokeTool::files.read", "effect_id": "effect-1", **decided}
    return [
        draft("policy.changed", SYSTEM_AGENT, "", version="f" * 64, previous="e" * 64, cause="start", policies=2),
        draft(
            "decision.deny",
            SYSTEM_AGENT,
            "",
            action="Canary",
            reason="forbidden",
            code="policy.denied",
            effect_id="effect-0",
            **policy,
        ),
        draft("runtime.started", SYSTEM_AGENT, "", version="1", configuration=CONFIGURATION),
        draft("run.started", source_digest="b" * 64, inputs_digest="c" * 64),
        draft("decision.allow", verdict="allow", enforced=True, **call),
        draft(
            "effect.outcome", outcome="confirmed", effect_id="effect-1", result_digest="d" * 64, action=call["action"]
        ),
        draft(
            "decision.deny",
            verdict="deny",
            reason="forbidden",
            code="policy.denied",
            **{**call, "effect_id": "effect-2"},
        ),
        draft("run.finished", state="finished"),
        draft("runtime.stopped", SYSTEM_AGENT, "", epoch=1),
    ]
