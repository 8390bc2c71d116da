"""What is known of a worker or a container that runs code, also of one that died."""

import pytest

from symbi.runtime.workers import ProcessUse, Workers
from symbi.sandbox.use import SandboxUse
from symbi.types import RunId

pytestmark = pytest.mark.anyio

RUN = RunId("run_1")


class Machine:
    """Answers as it is told."""

    def __init__(self, *uses):
        self.uses = list(uses)

    def __call__(self, _pid):
        return self.uses.pop(0)


def listening(workers):
    """What they tell: all processor time, and the most memory."""
    heard = []

    def tell(run_id, cpu_ns, memory_bytes):
        assert run_id == RUN
        heard.append((cpu_ns, memory_bytes))

    workers.tell = tell
    return heard


def summed(heard):
    return sum(cpu for cpu, _ in heard), max((memory for _, memory in heard), default=0)


async def told(*uses, looks=0):
    workers = Workers(Machine(*uses))
    heard = listening(workers)
    workers.begins(RUN, 7)
    for _ in range(looks):
        await workers.look(RUN)
    workers.ends(RUN, 7)
    return summed(heard)


async def test_what_its_code_used_is_told_at_the_end():
    assert await told(ProcessUse(5, 100), ProcessUse(9, 300)) == (4, 300)


async def test_the_most_memory_that_was_seen_is_told():
    assert await told(ProcessUse(5, 100), ProcessUse(7, 900), ProcessUse(9, 300), looks=1) == (4, 900)


async def test_a_dead_worker_that_is_not_taken_away_yet_has_its_time_and_no_memory():
    assert await told(ProcessUse(5, 100), ProcessUse(7, 900), ProcessUse(9, 0), looks=1) == (4, 900)


async def test_of_a_worker_that_is_gone_what_was_last_seen_counts():
    assert await told(ProcessUse(5, 100), ProcessUse(7, 900), None, looks=1) == (2, 900)


async def test_nothing_is_known_of_one_that_was_never_seen():
    assert await told(None, None) == (0, 0)
    assert await Workers().look(RUN) == 0


async def test_what_its_code_has_used_until_now_is_told_while_it_runs():
    workers = Workers(Machine(ProcessUse(5, 100), ProcessUse(8, 900), ProcessUse(9, 300)))
    heard = listening(workers)
    workers.begins(RUN, 7)
    assert await workers.look(RUN) == 900
    assert heard == [(3, 900)]
    workers.ends(RUN, 7)
    assert summed(heard) == (4, 900)


# --- containers ---------------------------------------------------------------------------------


class Container:
    """Uses what it is told to."""

    def __init__(self, *uses):
        self.uses = list(uses)

    async def ask(self):
        return self.uses.pop(0)


async def test_a_container_counts_from_when_its_code_begins_and_its_peak_is_told():
    workers, container = Workers(), Container(SandboxUse(70, 500, 800, 100), None)
    heard = listening(workers)
    workers.opens(RUN, container.ask, 50)
    assert await workers.look(RUN) == 400, "without what the container itself may take"
    assert heard == [(20, 800)]
    assert await workers.look(RUN) == 0, "nobody can tell"
    workers.closes(RUN, SandboxUse(75, 300, 900, 100))
    assert summed(heard) == (25, 900)
    assert await workers.look(RUN) == 0


async def test_of_a_container_that_is_gone_what_was_last_seen_counts():
    workers = Workers()
    heard = listening(workers)
    workers.opens(RUN, Container(SandboxUse(70, 500, 800)).ask, 50)
    await workers.look(RUN)
    workers.closes(RUN, None)
    assert summed(heard) == (20, 800)


async def test_an_answer_that_comes_after_the_end_counts_for_nobody():
    workers = Workers()
    heard = listening(workers)

    async def late():
        workers.closes(RUN, SandboxUse(60, 1, 1))
        workers.opens(RUN, Container().ask, 0)
        return SandboxUse(90, 900, 900)

    workers.opens(RUN, late, 50)
    assert await workers.look(RUN) == 0
    assert summed(heard) == (10, 1)
