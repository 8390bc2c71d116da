"""What a scheduled run gave, published on the topic that its schedule names."""

from typing import Final

from symbi.agent.journal import RunState
from symbi.agent.messages import Letter
from symbi.errors import Overloaded
from symbi.guard.action import PublishMessage
from symbi.runtime.course import Order
from symbi.runtime.runtime import Runtime
from symbi.types import AgentId, Principal, RunId

ATTEMPTS: Final = 6  # where mailboxes are full


async def deliver(runtime: Runtime, order: Order, run_id: RunId, topic: str) -> int:
    """Publish the value of a run that has finished, through the gate; returns how many agents get it.

    The ids of the messages are made of that of the run, so that what is delivered again after a crash is there already.

    Args:
        runtime: Has run it.
        order: Who ran.
        run_id: The run.
        topic: Where.

    Raises:
        Denied: Policy does not let its agent publish there, or not this.
        Overloaded: A mailbox stays full.
        AskFailed: The value was erased.
        StoreUnavailable: The books cannot be kept.
    """
    rooms, post = runtime.rooms, runtime.post
    record = await rooms.world.log.read(lambda: rooms.runs.get_run(run_id))
    if record is None or record.state is not RunState.FINISHED:
        return 0
    principal = post.addresses.principal(order, Principal(AgentId("")))
    answer = await post.questions.answer(record, principal)
    letter = Letter(run_id, principal, whole=answer.label)
    action = PublishMessage(
        principal=principal, label=answer.label, within=run_id, topic=post.topic(topic), body=answer.value
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with rooms.world.guard.enforce(action) as permit:
                allowed = rooms.world.guard.authority.redeem(permit, PublishMessage)
                return permit.observe(await post.spread(topic, allowed.body, letter, run_id))
        except Overloaded as full:
            if attempt == ATTEMPTS:
                raise
            await rooms.world.patience.wait(full.retry_after_s)
    raise AssertionError
