"""`kill -9`: what `send_message` acknowledged is received, once, in the order of each pair."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parents[1] / "data" / "crash_bus.py"
ROUNDS = 20 if os.environ.get("CRASH_TESTS") == "full" else 3


def started(folder, *arguments):
    return subprocess.Popen([sys.executable, str(DRIVER), str(folder), *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.timeout(600)
def test_nothing_that_was_acknowledged_is_lost_or_done_twice_or_out_of_order(tmp_path):
    chance = random.Random(7)
    acknowledged = {"a": set(), "c": set()}
    first = 0
    for _ in range(ROUNDS):
        process = started(tmp_path, "run", str(first))
        try:
            wanted = chance.randrange(20, 120)
            for _ in range(wanted):
                sender, number = process.stdout.readline().split()
                acknowledged[sender].add(int(number))
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate(timeout=30)
        finally:
            process.kill()
        for line in rest.splitlines():
            sender, _, number = line.partition(" ")
            if number and line == f"{sender} {number}" and number.isdigit():
                acknowledged[sender].add(int(number))
        # The next round sends some again under their ids, as whoever got no answer would.
        first = max(0, min(max(numbers, default=0) for numbers in acknowledged.values()) - 2)
    result = subprocess.run(
        [sys.executable, str(DRIVER), str(tmp_path), "drain"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=120,
    )
    said = json.loads(result.stdout.splitlines()[-1])
    assert said["dead"] == []
    for sender, numbers in acknowledged.items():
        done = [number for who, number in said["done"] if who == sender]
        assert set(done) >= numbers, "what was acknowledged is lost"
        assert done == sorted(set(done)), "a message was done twice, or out of order"
        assert len(numbers) >= 20
