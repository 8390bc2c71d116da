"""What a run takes and gives: inputs that are no values, and values that are no output."""

import math

import anyio
import pytest

from symbi.agent.interpreter import Interpreter
from symbi.agent.run import _output, check_inputs
from symbi.agent.values import Value
from symbi.dsl.compile import compile_file
from symbi.dsl.parser import parse
from symbi.errors import InputError, OutputLimit

TEXT = "agent a(x: Any) -> Any { with { let v = [1]; for i in range(3000) { v = [v]; } v } }"
SPEC = compile_file(parse(TEXT, "t.symbi"), TEXT).agents[0]


@pytest.mark.parametrize("value", [math.nan, math.inf, "\udcff", {"k": ["\ud800"]}, 2**63, [[[1e400]]]])
def test_inputs_that_could_not_be_recorded_are_refused_before_the_run(value):
    with pytest.raises(InputError, match="input `x` of agent `a` cannot be taken"):
        check_inputs(SPEC, {"x": value})


def test_inputs_that_nest_too_deeply_are_refused_before_the_run():
    value: object = 1
    for _ in range(900):
        value = [value]
    with pytest.raises(InputError, match="nested deeper"):
        check_inputs(SPEC, {"x": value})


def test_a_value_that_nests_too_deeply_is_the_agents_fault_and_not_ours():
    async def run() -> Value:
        return await Interpreter("t.symbi", SPEC.functions, None).run(SPEC.body, {"x": Value(1)})

    with pytest.raises(OutputLimit, match="nests too deeply"):
        anyio.run(_output, anyio.run(run), SPEC, 1_000_000)
