"""How a runtime stands, gathered from its rooms; costs the same however many agents there are."""

from functools import partial
from types import MappingProxyType

from symbi.runtime.course import Course
from symbi.runtime.rooms import Rooms
from symbi.runtime.status import MOST_COUNTED, Standing
from symbi.tools.breaker import BreakerState


async def standing_of(rooms: Rooms, course: Course, resting: int) -> Standing:
    """How a runtime stands, beyond its scheduler.

    Args:
        rooms: What it stands on.
        course: What is at work.
        resting: Runs that rest.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    roster, world = course.roster, rooms.world
    waiting = await world.log.read(partial(rooms.waiting.waiting, MOST_COUNTED))
    closed = BreakerState.CLOSED
    return Standing(
        agents=MappingProxyType({state: count for state, count in roster.counts.items() if count}),
        living=roster.living,
        at_work=len(course.at_work),
        resting=resting,
        waiting=waiting,
        used=MappingProxyType(course.measuring.book.total().facts()),
        processes=MappingProxyType(rooms.workers.processes()),
        breakers=MappingProxyType(
            {one.name: one.state.value for one in rooms.catalog.dependencies if one.state is not closed}
        ),
        lag=rooms.pulse.lag,
        head=world.log.sequence,
        policies=rooms.policies.current.version,
        halted=roster.halted,
    )
