"""An effect without the right permit does not type-check.

mypy reads this file and nothing runs it. Each `type: ignore` names the error that must be there: one that is not needed
is an error itself.
"""

from symbi.guard.action import ConnectServer, ExecuteCode, InvokeTool, ReadResource
from symbi.guard.permit import Authority, Permit
from symbi.sandbox.port import SandboxDriver
from symbi.tools.port import SecretSource, ServerSession, ToolServer


async def an_effect_needs_a_permit(server: ToolServer, driver: SandboxDriver, secrets: SecretSource) -> None:
    await server.connect()  # type: ignore[call-arg]
    await server.call(secrets={})  # type: ignore[call-arg]
    await driver.run(None)  # type: ignore[arg-type]
    secrets.resolve(path="mail/password")  # type: ignore[call-arg]


async def a_permit_is_for_one_kind_of_action(
    server: ToolServer, driver: SandboxDriver, connect: Permit[ConnectServer], call: Permit[InvokeTool]
) -> None:
    await server.connect(connect)
    await server.call(call, {})
    await server.connect(call)  # type: ignore[arg-type]
    await server.call(connect, {})  # type: ignore[arg-type]
    await driver.run(call)  # type: ignore[arg-type]


async def what_is_asked_of_a_server_beside_tools_needs_its_own_permit(
    session: ServerSession, read: Permit[ReadResource], call: Permit[InvokeTool]
) -> None:
    await session.read(read)
    await session.read(call)  # type: ignore[arg-type]
    await session.browse(read)  # type: ignore[arg-type]
    await session.prompt()  # type: ignore[call-arg]


def the_authority_hands_back_the_action_that_was_asked_for(
    authority: Authority, call: Permit[InvokeTool], code: Permit[ExecuteCode]
) -> tuple[InvokeTool, ExecuteCode]:
    return authority.redeem(call, InvokeTool), authority.redeem(code, ExecuteCode)


def an_action_of_another_kind_is_no_answer(authority: Authority, call: Permit[InvokeTool]) -> ExecuteCode:
    return authority.redeem(call, InvokeTool)  # type: ignore[return-value]
