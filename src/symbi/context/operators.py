"""What an operator sees of a memory: all of it, whatever its label, a page at a time."""

from dataclasses import replace
from functools import partial

from symbi.context.finding import Question, behind_row, by_content, found_in, most_tokens, narrowed, newest, sealed_page
from symbi.context.kinds import ContextQuery, Recalled
from symbi.context.memory import Memory
from symbi.context.port import Row
from symbi.context.ranking import fitting
from symbi.context.sealing import found, opened_body
from symbi.errors import InputError
from symbi.types import AgentId


async def seen_by_operator(memory: Memory, space: AgentId, query: ContextQuery, after: str = "") -> Recalled:
    """What an agent remembers, whatever its label, newest first, behind an item; for who has passed the gate otherwise."""
    read, store, vault = memory.rooms.log.read, memory.rooms.store, memory.rooms.guard.vault
    levels = frozenset((await read(partial(store.space_of, space))).levels)
    wanted = narrowed(query, space, levels, (memory.now_ms, memory.oldest_of(space)), shared=False)
    if after:
        last = await read(partial(store.items_of, space, [after]))
        if not last:
            msg = "the item is not there any more behind which it was to go on"
            raise InputError(msg, code="context.gone", hint="begin again")
        wanted = behind_row(wanted, last[0])
    question = Question(query, wanted, memory.terms.of(space))
    if not by_content(wanted):
        chosen, cut = await read(partial(found_in, store, vault, question, {}))
        return Recalled((one for _, one in chosen), cut=cut)
    plain = replace(wanted, sealed=False, limit=query.limit)
    rows = await read(lambda: [(row, opened_body(row, vault)) for row in newest(store, plain)])
    seen = [(row.number, found(row, body)) for row, body in rows if body is not None]
    behind: Row | None = None
    large = False
    while True:  # in steps, so that others come to the store in between
        page, behind = await read(partial(sealed_page, store, vault, wanted, behind))
        seen += [(row.number, found(row, body)) for row, body in page]
        seen.sort(key=lambda one: -one[0])
        fit = fitting([one.tokens for _, one in seen], most_tokens(query))
        most = min(query.limit, fit)
        full, large = most == query.limit or most < len(seen), large or fit < min(len(seen), query.limit)
        seen = seen[:most]
        if behind is None or (full and (not seen or seen[-1][0] > behind.number)):
            return Recalled((one for _, one in seen), cut=large)
