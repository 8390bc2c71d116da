"""An argument that an operation does not know is refused by its name, of every operation, and nothing happens."""

import json
import os

import anyio
import pytest

from symbi.api.arguments import ARGUMENTS
from symbi.api.caller import Caller, operate
from symbi.api.client import ask_owner, connect_owner
from symbi.api.control import OPERATIONS, ControlSocket
from symbi.errors import InputError, PolicyDenied
from symbi.policy.library import BASE
from symbi.testing.runtime import open_in

pytestmark = pytest.mark.anyio

AGENT = 'agent a() { with { "done" } }'


def test_of_every_operation_it_is_said_what_it_takes():
    assert set(ARGUMENTS) == set(OPERATIONS)


def watched(touched):
    """Every operation by its name, and whether one was carried out."""

    def of(name):
        async def work(_runtime, _caller, _arguments):
            touched.append(name)
            return []

        return work

    return {name: of(name) for name in OPERATIONS}


def trail(running):
    return [json.loads(one.record) for one in running.runtime.rooms.world.log._store.read(1)]


async def test_every_operation_refuses_what_it_does_not_know_and_does_nothing(tmp_path):
    touched = []
    operations, caller = watched(touched), Caller(os.geteuid(), folder_owner=True)
    async with open_in(tmp_path, AGENT, policies=BASE.text) as running:

        async def refused(name, arguments):
            with pytest.raises(InputError) as error:
                await operate(running.runtime, operations, caller, name, arguments)
            assert error.value.code == "control.argument"
            return error.value

        for name in sorted(OPERATIONS):
            known = dict.fromkeys(ARGUMENTS[name], "x")
            for given in ({"no-such": "gooseberry"}, {**known, "no-such": None}):
                assert (await refused(name, given)).message == f"`{name}` takes no argument `no-such`"
            other = min(set().union(*ARGUMENTS.values()) - ARGUMENTS[name])  # of another one, and no more known to this
            assert f"`{other}`" in (await refused(name, {**known, other: "x"})).message
        assert touched == []
        error = await refused("kb.rm", {f"x{number:02}" * 40: 1 for number in range(50)})
        assert "and 45 more" in error.message
        assert len(error.message) < 500
        assert (await refused("kb.rm", {"source": ["a"]})).hint == "did you mean `sources`?"
        assert "it takes none" in (await refused("keys.list", {"all": True})).hint
        # What is known goes through; and of what is not, neither name nor value stands where it stays for ever.
        assert await operate(running.runtime, operations, caller, "kb.rm", dict.fromkeys(ARGUMENTS["kb.rm"], "x")) == []
        assert touched == ["kb.rm"]
        text = json.dumps(trail(running))
        assert "control.argument" in text
        assert "no-such" not in text
        assert "gooseberry" not in text


async def test_who_may_not_ask_is_not_told_what_there_is_to_be_asked(tmp_path):
    touched = []
    operations, stranger = watched(touched), Caller(65_534, folder_owner=False)
    async with open_in(tmp_path, AGENT, policies=BASE.text) as running:
        for name in sorted(OPERATIONS):
            with pytest.raises(PolicyDenied):
                await operate(running.runtime, operations, stranger, name, {"no-such": 1})
    assert touched == []


async def test_who_asks_at_the_socket_is_told_which_it_is(tmp_path):

    async with (
        open_in(tmp_path, AGENT, policies=BASE.text) as running,
        ControlSocket(running.runtime, tmp_path / ".symbi"),
    ):

        def ask():
            connection = connect_owner(tmp_path / ".symbi")
            return ask_owner(connection, "memory.forget", {"agent": "a", "tag": ["old"], "all": True})

        with pytest.raises(InputError) as error:
            await anyio.to_thread.run_sync(ask)
        assert error.value.message == "`memory.forget` takes no argument `tag`"
        assert "tags" in error.value.hint
