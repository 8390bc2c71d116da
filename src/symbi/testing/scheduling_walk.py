"""Scheduler and model through many worlds, by chance."""

from random import Random
from typing import Final

from symbi.runtime.resources import Amount, Strategy
from symbi.runtime.scheduler import Task, TaskId
from symbi.testing.scheduling import CRITICAL, LEVELS, SchedulerTwin
from symbi.types import Priority

_SUBMIT, _PLAN, _SUSPEND, _FINISH, _WITHDRAW = range(5)


class SchedulerWalk:
    """Steps by chance, in one world after the other; everything in a world ends before the next begins.

    Args:
        seed: Of all of them.
    """

    STEPS_OF_A_WORLD: Final = 2_000

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 - a walk that can be taken again
        self._names = 0
        self._left = 0
        self.worlds = 0
        self.counts: dict[str, int] = {}
        self._begin()

    def run(self, steps: int) -> None:
        """Take so many steps.

        Raises:
            AssertionError: Scheduler and model differ, or a promise is broken.
        """
        for _ in range(steps):
            if not self._left:
                self._end()
                self._begin()
            self._left -= 1
            self._step()
        self._end()
        self._begin()

    def _begin(self) -> None:
        random = self._random
        self._size = random.choice((6, 20, 40))
        capacities = [
            Amount(*(random.randint(self._size // 2, self._size) for _ in range(4)))
            for _ in range(random.choice((1, 1, 2, 3, 5)))
        ]
        strategy = random.choice(list(Strategy))
        self.twin = SchedulerTwin(capacities, strategy, random.choice((1, 3, 8, 16)), random.choice((10, 30, 60)))
        self._weights = [
            random.choice((10, 30)),
            random.choice((20, 40)),
            random.choice((5, 20)),
            20,
            random.choice((1, 5)),
        ]
        self._pauses = random.choice(((0.0, 0.25), (0.0, 1.0, 5.0), (0.0, 0.5, 20.0, 100.0)))
        self._urgent = random.choice((0.1, 0.3))
        self._hurried = random.choice((0.05, 0.3))
        self._crowded = random.random() < 0.3  # noqa: PLR2004 - many small ones that pass a large one
        self._left = self.STEPS_OF_A_WORLD
        self.worlds += 1

    def _end(self) -> None:
        self.twin.run_out()
        for how in self.twin.ended.values():
            self.counts[how] = self.counts.get(how, 0) + 1
        suspensions = sum(self.twin.suspensions.values())
        self.counts["suspended"] = self.counts.get("suspended", 0) + suspensions

    def _step(self) -> None:
        random, twin = self._random, self.twin
        twin.now_s += random.choice(self._pauses)
        what = random.choices((_SUBMIT, _PLAN, _SUSPEND, _FINISH, _WITHDRAW), self._weights)[0]
        if what == _SUBMIT:
            twin.submit(self._task())
        elif what == _PLAN:
            twin.plan(random.choice((1, 3, 256, 256, 256)))
        elif what == _SUSPEND and (told := twin.told):
            twin.suspended(random.choice(told))
        elif what == _FINISH and twin.held:
            twin.finish(random.choice(list(twin.held)))
        elif what == _WITHDRAW and (waiting := twin.waiting):
            twin.withdraw(random.choice(waiting))
        twin.check()

    def _task(self) -> Task:
        random, size = self._random, self._size
        self._names += 1
        most = random.choice((size // 4, size // 2, size))
        if self._crowded:
            most = size if random.random() < 0.03 else size // 6 + 1  # noqa: PLR2004 - few
        parts = [random.randint(0, most) if random.random() < 0.7 else 0 for _ in range(4)]  # noqa: PLR2004 - mixed
        urgent = random.random() < self._urgent
        return Task(
            TaskId(str(self._names)),
            Amount(*parts),
            Priority.CRITICAL if urgent else random.choice(LEVELS[:CRITICAL]),
            owner=random.choice(("ada", "bob", "cyd")),
            batch=random.random() < 0.15,  # noqa: PLR2004 - some
            deadline_s=self._deadline_s() if random.random() < self._hurried else None,
            preemptible=random.random() < 0.9,  # noqa: PLR2004 - most
        )

    def _deadline_s(self) -> float:
        return self.twin.now_s + self._random.choice((0.0, 1.0, 30.0, 400.0))
