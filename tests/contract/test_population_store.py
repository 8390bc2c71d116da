"""The ports of agents that stay and of their messages, on every store."""

import pytest

from symbi.adapters.sqlite import SqliteStore
from symbi.errors import StoreUnavailable
from symbi.testing.contracts_population import AGENT_STORE_CHECKS, MAILBOX_CHECKS, agent_record, message
from symbi.types import RunId


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    with SqliteStore(tmp_path / "data" if request.param == "disk" else None) as opened:
        yield opened


@pytest.mark.parametrize("check", [*AGENT_STORE_CHECKS, *MAILBOX_CHECKS], ids=lambda check: check.__name__)
def test_the_contract(check, store):
    check(store)


def test_a_newer_owner_keeps_an_older_one_from_agents_and_messages(tmp_path):
    with SqliteStore(tmp_path) as store:
        with store.transaction():
            store.put_agents([agent_record()])
            store.put_message(message())
        store._db.execute("UPDATE meta SET value = '9' WHERE key = 'epoch'")
        for write in (
            lambda: store.put_agents([agent_record()]),
            lambda: store.move_agent(agent_record(), 2),
            lambda: store.put_message(message(1)),
            lambda: store.begin_message(RunId("m0")),
            lambda: store.drop_message(RunId("m0")),
            lambda: store.ripen(1, 1),
        ):
            with pytest.raises(StoreUnavailable, match="taken over"), store.transaction():
                write()


def test_messages_and_agents_are_found_by_index(tmp_path):
    """However many there are, what is looked for is not searched for among all."""
    from symbi.adapters.sqlite.file import SQL  # noqa: PLC0415 - the statements themselves

    with SqliteStore(tmp_path) as store:
        for name in (
            "get_agent", "agents", "agents_in", "next_message", "get_message", "waiting_agents", "ripe_messages",
            "earliest_due", "count_messages", "move_agent", "begin_message", "drop_message",
        ):  # fmt: skip
            values = ("x",) * SQL[name].count("?")
            plan = [row[3] for row in store._db.execute(f"EXPLAIN QUERY PLAN {SQL[name]}", values)]
            assert not [step for step in plan if "SCAN" in step and "CONSTANT" not in step and "INDEX" not in step
                        and "subquery" not in step], (name, plan)  # fmt: skip
            assert not [step for step in plan if "TEMP B-TREE" in step and name != "ripe_messages"], (name, plan)
