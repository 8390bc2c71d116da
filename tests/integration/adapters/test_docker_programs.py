"""What a container says of a program, which may be anything: an answer of one form, or an error that says whose fault it is."""

import base64
import json
from dataclasses import replace

import pytest
from tests.integration.adapters import test_docker_faults as faults

from symbi.adapters.docker import DockerOptions, DockerSandbox, Engine, program
from symbi.errors import CodeFailed, MemoryLimit, OutputLimit, PermitRefused, SandboxUnavailable, TimeLimit, Unavailable
from symbi.guard.action import RunContainer
from symbi.guard.permit import Authority
from symbi.testing.clock import ManualClock
from symbi.types import AgentId, EffectId, Principal, SecurityTier

IMAGE = "sha256:" + 64 * "0"
OPTIONS = DockerOptions(image=IMAGE, runtime="runc", instance="test")
ENDED = {"kind": "ended", "status": 0, "oom": 0, "stdout": "", "stderr": "", "outputs": []}


def asked(*outputs, **changes):
    return RunContainer(
        principal=Principal(AgentId("a")), image=IMAGE, command=("p",), tier=SecurityTier.TIER1, outputs=outputs, **changes
    )  # fmt: skip


def told(name, data):
    return {"name": name, "data": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (b"", SandboxUnavailable, "unavailable.sandbox_answer"),
        (b"[]", SandboxUnavailable, "unavailable.sandbox_answer"),
        (b"[" * 100_000, SandboxUnavailable, "unavailable.sandbox_answer"),
        ({"kind": "told"}, SandboxUnavailable, "unavailable.sandbox_answer"),
        (ENDED | {"status": "0"}, SandboxUnavailable, "unavailable.sandbox_answer"),
        (ENDED | {"status": True}, SandboxUnavailable, "unavailable.sandbox_answer"),
        ({"kind": "ended", "status": 0}, SandboxUnavailable, "unavailable.sandbox_answer"),
        (ENDED | {"status": 9, "oom": 1}, MemoryLimit, "limit.memory"),
        ({"kind": "time"}, TimeLimit, "limit.time"),
        ({"kind": "printed"}, OutputLimit, "limit.output"),
        ({"kind": "staging", "errno": "ENOSPC"}, MemoryLimit, "limit.memory"),
        ({"kind": "staging", "errno": "`x`\n"}, SandboxUnavailable, "unavailable.sandbox"),
        ({"kind": "exec", "errno": "ENOENT"}, CodeFailed, "agent.code"),
        ({"kind": "exec", "errno": "\x1b[31m" * 50}, CodeFailed, "agent.code"),
    ],
    ids=str,
)
def test_an_answer_that_is_not_the_end_of_a_program_is_an_error(answer, error, code):
    data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    with pytest.raises(error) as caught:
        program._ended(data, asked(), OPTIONS)
    assert caught.value.code == code
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "outputs",
    [
        None, {}, [], [told("b", b"")], [told("a", b""), told("b", b"")], [{"name": "a"}], [{"name": "a", "data": 1}],
        [{"name": "a", "data": "*"}], [{"name": ["a"], "data": ""}], [7], [{"data": ""}], [{"name": "a", "problem": 2}],
    ],
    ids=str,
)  # fmt: skip
def test_outputs_are_those_that_were_declared_in_their_order_and_nothing_else(outputs):
    with pytest.raises(SandboxUnavailable) as caught:
        program._outputs(outputs, asked("a"), failed=False)
    assert caught.value.code == "unavailable.sandbox_answer"


def test_what_was_not_written_is_null_only_where_the_program_failed():
    missing = [{"name": "a", "problem": "ENOENT"}, told("b", b"x")]
    assert program._outputs(missing, asked("a", "b"), failed=True) == {"a": None, "b": b"x"}
    with pytest.raises(CodeFailed, match="did not write its output `a`"):
        program._outputs(missing, asked("a", "b"), failed=False)


@pytest.mark.parametrize(("problem", "error"), [("ELOOP", CodeFailed), ("EINVAL", CodeFailed), ("EFBIG", OutputLimit)])
@pytest.mark.parametrize("failed", [True, False])
def test_what_is_no_file_is_an_error_however_the_program_ended(problem, error, failed):
    with pytest.raises(error):
        program._outputs([{"name": "a", "problem": problem}], asked("a"), failed=failed)


@pytest.mark.parametrize(("status", "code"), [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (11 | 0x80, 139)])
def test_exit_codes_are_those_of_shells(status, code):
    assert program._code(status) == code


def test_files_are_handed_over_in_pieces_that_fit_a_frame():
    data = bytes(range(256)) * 3000
    pieces = list(program._pieces({"a": data, "b": b""}))
    assert [piece["name"] for piece in pieces] == ["a", "a", "a", "b"]
    assert b"".join(base64.b64decode(piece["data"]) for piece in pieces) == data


def test_a_program_has_the_search_path_of_its_image_and_no_bound_on_its_data():
    image = {"Config": {"Env": ["LANG=x", "PATH=/opt/bin:/bin", "TOKEN=1"]}}
    request = program._request(asked(env={"MODE": "x"}), OPTIONS, program._search_path(image))
    assert request["env"] == {
        "HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp", "PATH": "/opt/bin:/bin", "MODE": "x",
    }  # fmt: skip
    assert "DATA" not in request["limits"]
    assert program._search_path({}) == program._search_path({"Config": {"Env": None}}) == program.DEFAULT_PATH


@pytest.mark.anyio
async def test_a_program_that_did_not_come_to_begin_has_not_spent_its_permit(tmp_path):
    authority = Authority(ManualClock())
    options = DockerOptions(image=IMAGE, runtime="runc", instance="test", images=frozenset({IMAGE}))
    async with Engine(f"unix://{tmp_path}/none.sock") as engine:
        driver = DockerSandbox(authority, SecurityTier.TIER1, engine, options)
        permit = authority.mint(EffectId("e"), asked())
        with pytest.raises(SandboxUnavailable) as raised:
            await driver.run_command(permit)
        assert raised.value.code == "unavailable.engine"
        assert authority.uses_left(permit) == 1
        authority.redeem(permit, RunContainer)
        with pytest.raises(PermitRefused):
            await driver.run_command(permit)


class Known:
    """An engine with one runtime, which can do nothing else."""

    async def info(self):
        return {"Runtimes": {"runc": {}}}

    async def image(self, _reference):
        return None


class NoName:
    """Grants no network: a name has no address now."""

    async def open(self, _permit):
        raise Unavailable("no address", code="unavailable.name")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("runtime", "network", "code"),
    [
        ("runc", ("api.example:443",), "unavailable.name"),
        ("runc", (), "unavailable.image"),
        ("kata", (), "unavailable.runtime"),
    ],
)
async def test_a_name_an_image_or_a_runtime_that_is_not_there_is_said_and_nothing_has_begun(runtime, network, code):
    authority = Authority(ManualClock())
    options = DockerOptions(image=IMAGE, runtime=runtime, instance="test", images=frozenset({IMAGE}))
    driver = DockerSandbox(authority, SecurityTier.TIER1, Known(), options, egress=NoName())
    permit = authority.mint(EffectId("e"), asked(network=network))
    with pytest.raises(Unavailable) as raised:
        await driver.run_command(permit)
    assert raised.value.code == code
    assert authority.uses_left(permit) == 1


@pytest.fixture
async def fake(tmp_path):
    async with faults.FakeEngine(str(tmp_path / "d.sock")).serving() as engine:
        yield engine


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("inputs", "error", "code", "left"),
    [
        ({"a": "x" * 8_000_000}, SandboxUnavailable, "unavailable.sandbox_inputs", 1),
        ({}, TimeLimit, "limit.time", 0),
    ],
    ids=["inputs", "program"],
)
async def test_inputs_that_take_all_of_the_time_are_not_a_program_that_did(
    fake, monkeypatch, inputs, error, code, left
):
    monkeypatch.setattr(program, "GRACE_S", 0.1)
    options = replace(faults.OPTIONS, images=frozenset({IMAGE}))
    authority = Authority(ManualClock())
    permit = authority.mint(EffectId("e"), asked(inputs=inputs, timeout_s=0.1))
    fake.answer = faults.HANG  # it reads one frame of what it is sent, and no more
    async with Engine(f"unix://{fake.path}") as engine:
        with pytest.raises(error) as raised:
            await DockerSandbox(authority, SecurityTier.TIER1, engine, options).run_command(permit)
    assert raised.value.code == code
    assert authority.uses_left(permit) == left
    assert fake.containers == set()
