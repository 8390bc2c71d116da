"""A million steps of the scheduler beside the model of its documentation (`symbi.testing.scheduling`), by chance.

    python tools/walk_scheduler.py [--steps 1000000] [--seed 1]

Whatever differs, and whatever promise is broken, ends it with an AssertionError that says what; a walk is taken again
by its seed. The suite takes 50,000 steps (tests/property/test_scheduler_model.py).
"""

import argparse
import time

from symbi.testing.scheduling_walk import SchedulerWalk

CHUNK = 100_000


def main() -> None:
    """Walk, and tell how far."""
    parser = argparse.ArgumentParser(description="Scheduler and pool against their model.")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    walk, begun = SchedulerWalk(arguments.seed), time.perf_counter()
    for done in range(0, arguments.steps, CHUNK):
        walk.run(min(CHUNK, arguments.steps - done))
        took = time.perf_counter() - begun
        ends = ", ".join(f"{count:,} {how}" for how, count in sorted(walk.counts.items()))
        print(f"{min(done + CHUNK, arguments.steps):,} steps, {walk.worlds:,} worlds, {took:.0f} s: {ends}", flush=True)


if __name__ == "__main__":
    main()
