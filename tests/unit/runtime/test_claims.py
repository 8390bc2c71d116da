"""What an agent claims is what its code has, and no more than the operator lets any have; what nothing enforces is refused."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.agent.interpreter import BodyLimits
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.dsl.spec import AgentSpec
from symbi.errors import InputError
from symbi.runtime.claims import code_limits, refuse_unenforceable
from symbi.runtime.rooms import RuntimeConfig
from symbi.sandbox.tier import UNREMARKABLE
from symbi.types import AgentId, ResourceLimits, SecurityTier

TOLD = RuntimeConfig(
    "development", "memory", "enforced", SecurityTier.TIER1, BodyLimits(1, 1),
    code_memory_mib=256, code_cpu_milli=1000, code_timeout_s=30.0, run_timeout_s=60.0, output_bytes=1, max_living=1, max_at_work=1,
)  # fmt: skip


def had(attributes, **lowered):
    """Mebibytes and milli-cores that the code of an agent file has, where policies lowered some of its limits."""
    source = f"agent a {{ with {attributes} {{ return 1; }} }}"
    spec = compile_file(parse(source, "t.symbi"), source).agents[0]
    return of(replace(spec, limits=replace(spec.limits, **lowered)))


def of(spec, told=TOLD):
    limits = code_limits(spec, SecurityTier.TIER1, UNREMARKABLE, told)
    return limits.memory_mib, limits.cpu_milli


def test_code_has_what_its_agent_claims_and_no_more_than_any_may():
    assert had('memory = "128MB", max_cpu_cores = 0.5') == (128, 500)
    assert had('memory = "1GB", max_cpu_cores = 4') == (256, 1000)
    assert had("max_memory_mb = 32") == (32, 1000)


def test_an_agent_that_claims_nothing_has_what_any_may_and_not_what_it_takes_from_the_pool():
    assert had("timeout = 30s") == (256, 1000)
    assert had('memory = "64MB", max_cpu_cores = 0.1') == (64, 100), (
        "what is written is a claim, also where it is the default"
    )


def test_what_policies_leave_it_is_a_claim():
    assert had("timeout = 30s", cpu_cores=0.05) == (256, 50)
    assert had("timeout = 30s", memory_mb=32) == (32, 1000)
    assert had("max_cpu_cores = 0.5", cpu_cores=0.2) == (256, 200)


@pytest.mark.parametrize(
    ("attributes", "lowered", "mibitps"),
    [
        ("max_network_mbps = 8", {}, 8),
        ("timeout = 30s", {}, 0),
        ("max_network_mbps = 8", {"network_io_mbps": 3}, 3),
    ],
)
def test_a_claim_of_network_reaches_its_programs(attributes, lowered, mibitps):
    source = f"agent a {{ with {attributes} {{ return 1; }} }}"
    spec = compile_file(parse(source, "t.symbi"), source).agents[0]
    spec = replace(spec, limits=replace(spec.limits, **lowered))
    assert code_limits(spec, SecurityTier.TIER1, UNREMARKABLE, TOLD).network_mibitps == mibitps


def test_limits_that_were_made_by_hand_are_claims():
    assert of(AgentSpec(AgentId("a"), "t", "d")) == (64, 100)


SPECS = st.builds(
    lambda memory, milli, assumed: AgentSpec(
        AgentId("a"),
        "t",
        "d",
        limits=ResourceLimits(memory_mb=memory, cpu_cores=milli / 1000),
        assumed=frozenset(assumed),
    ),
    st.integers(1, 4096),
    st.integers(1, 8000),
    st.sets(st.sampled_from(["memory_mb", "cpu_cores"])),
)


@given(SPECS, st.integers(1, 4096), st.integers(10, 8000))
def test_code_never_has_more_than_the_operator_allows_or_than_was_claimed(spec, memory, milli):
    told = replace(TOLD, code_memory_mib=memory, code_cpu_milli=milli)
    has_memory, has_milli = of(spec, told)
    assert has_memory <= memory
    assert has_milli <= milli
    if not spec.assumed:
        assert has_memory <= spec.limits.memory_mb
        assert has_milli <= round(spec.limits.cpu_cores * 1000)


def test_a_claim_of_disk_bandwidth_is_refused_as_nothing_enforces_it():
    refuse_unenforceable(ResourceLimits(network_io_mbps=5))
    with pytest.raises(InputError, match="5 MiB/s of disk cannot be enforced") as caught:
        refuse_unenforceable(ResourceLimits(disk_io_mbps=5))
    assert caught.value.code == "limits.disk"


def test_what_a_file_says_nothing_of_is_named_as_the_limits_are():
    assumed = compile_file(parse("agent a { }", "t.symbi"), "agent a { }").agents[0].assumed
    assert assumed <= {field.name for field in fields(ResourceLimits)}
    assert assumed
