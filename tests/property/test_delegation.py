"""Trees of questions on small pools: whoever waits holds nothing, so that every tree ends, whatever its shape."""

from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbi.testing.runtime import open_in

ALL = '@id("all") permit (principal, action, resource);'
TREES = st.recursive(st.just(()), lambda below: st.lists(below, max_size=3).map(tuple), max_leaves=6)


def size(tree):
    return 1 + sum(map(size, tree))


def declared(tree, name):
    """An agent for each node of a tree, which asks those below it one after the other and gives how many there are."""
    names = [f"{name}_{index}" for index in range(len(tree))]
    asks = "".join(f' n += ask("{below}", {{}});' for below in names)
    return [
        f"agent {name} {{ with {{ let n = 1;{asks} return n; }} }}",
        *(text for below, part in zip(names, tree, strict=True) for text in declared(part, below)),
    ]


async def carried_out(folder, trees, seats):
    text = "\n".join(line for index, tree in enumerate(trees) for line in declared(tree, f"r{index}"))
    config = f"[runtime]\nmax_concurrent_agents = {seats}\n"
    values = {}
    async with open_in(folder, text, policies=ALL, config=config) as opened:
        specs = {spec.id: spec for spec in opened.compiled.agents}

        async def run(index):
            outcome = await opened.runtime.run(opened.compiled, specs[f"r{index}"], {})
            values[index] = outcome.output

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for index in range(len(trees)):
                    tasks.start_soon(run, index)
        status = await opened.runtime.get_system_status()
        runs = await opened.runtime.rooms.world.log.read(lambda: opened.runtime.rooms.runs.runs(1000))
    assert (status.running, sum(status.queued.values()), status.free) == (0, 0, status.capacity)
    return [values[index] for index in range(len(trees))], len(runs)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(trees=st.lists(TREES, min_size=1, max_size=3), seats=st.integers(1, 2))
def test_every_tree_of_questions_ends_on_a_pool_of_one_or_two(trees, seats):
    with TemporaryDirectory() as folder:
        values, runs = anyio.run(carried_out, Path(folder), trees, seats)
    assert values == [size(tree) for tree in trees]
    assert runs == sum(values)  # each node is one run
