"""What is known of a worker that runs code, also of one that died."""

from symbi.runtime.workers import ProcessUse, Workers
from symbi.types import RunId

RUN = RunId("run_1")


class Machine:
    """Answers as it is told."""

    def __init__(self, *uses):
        self.uses = list(uses)

    def __call__(self, _pid):
        return self.uses.pop(0)


def told(*uses, looks=0):
    workers = Workers(Machine(*uses))
    heard = []
    workers.tell = lambda *what: heard.append(what)
    workers.begins(RUN, 7)
    for _ in range(looks):
        workers.memory_of(RUN)
    workers.ends(RUN, 7)
    return heard


def test_what_its_code_used_is_told_at_the_end():
    assert told(ProcessUse(5, 100), ProcessUse(9, 300)) == [(RUN, 4, 300)]


def test_the_most_memory_that_was_seen_is_told():
    assert told(ProcessUse(5, 100), ProcessUse(7, 900), ProcessUse(9, 300), looks=1) == [(RUN, 4, 900)]


def test_a_dead_worker_that_is_not_taken_away_yet_has_its_time_and_no_memory():
    assert told(ProcessUse(5, 100), ProcessUse(7, 900), ProcessUse(9, 0), looks=1) == [(RUN, 4, 900)]


def test_of_a_worker_that_is_gone_what_was_last_seen_counts():
    assert told(ProcessUse(5, 100), ProcessUse(7, 900), None, looks=1) == [(RUN, 2, 900)]


def test_nothing_is_known_of_one_that_was_never_seen():
    assert told(None, None) == [(RUN, 0, 0)]
    assert Workers().memory_of(RUN) == 0
