"""What others say of heads is kept with the checkpoint, and only what is of this trail."""

from dataclasses import replace

import anyio
import pytest

from symbi.audit.anchor import Stamped, stamped_bytes
from symbi.audit.checkpoint import Note, cosign, parse_note, seal_checkpoint, verify_cosignature
from symbi.audit.event import AuditEventType
from symbi.audit.heads import Heads, keep_head
from symbi.audit.segments import holds_more_than_keeping
from symbi.audit.verify import claims_of, verify_trail
from symbi.audit.witness import verify_by
from symbi.clock import rfc3339
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import ChainBroken, InputError, Unavailable
from symbi.testing.keeping import OTHER_KEY, open_kept, trusted
from symbi.testing.trail import fixed_signing_key

pytestmark = pytest.mark.anyio
NAME = "witness.example/w1"
OWN = SigningKey(bytes([2]) * 32, open_provider())


@pytest.fixture
async def kept(tmp_path):
    async with open_kept(None, tmp_path) as opened:
        await opened.append(300)
        yield opened


def head(kept):
    return parse_note(kept.store.head()[1])


def signed(note, name=NAME):
    return cosign(note, name, OWN, 1_767_322_999)


def checkpoint(kept, size):
    return next((parse_note(note) for _, note in kept.store.checkpoints(size, size)), None)


# --- witnesses ------------------------------------------------------------------------------------


async def test_a_cosignature_is_kept_with_the_checkpoint_and_said_once(kept):
    note = head(kept)
    for recorded in (True, False):
        said = await kept.heads.witnessed(signed(note), NAME)
        assert said["recorded"] is recorded
    size = note.checkpoint.size
    assert verify_cosignature(checkpoint(kept, size), NAME, OWN.verifying_key()) == 1_767_322_999
    events = [event for event in kept.events() if event.event_type == AuditEventType.CHECKPOINT_WITNESSED]
    assert [(event.details["size"], event.details["witness"]) for event in events] == [(size, NAME)]
    await kept.heads.witnessed(signed(note, "another/w2"), "another/w2")
    assert [one.name for one in checkpoint(kept, size).signatures] == [note.checkpoint.origin, NAME, "another/w2"]


async def test_a_head_that_is_not_the_last_any_more_is_checked_against_the_tree(kept):
    note = head(kept)
    await kept.append(10)
    assert (await kept.heads.witnessed(signed(note), NAME))["recorded"]
    verify_by(checkpoint(kept, note.checkpoint.size), trusted())


async def test_a_head_of_another_history_is_refused(kept):
    before = head(kept).checkpoint
    await kept.append(10)
    now = head(kept).checkpoint
    for wrong in (
        replace(before, root=bytes(32)),
        replace(before, chain_hash="00" * 32),
        replace(before, origin="symbi.trail/other"),
        replace(now, root=bytes(32)),
        replace(now, size=now.size + 1),
    ):
        note = parse_note(seal_checkpoint(wrong, fixed_signing_key()))  # by the holder of the trail's key
        with pytest.raises(ChainBroken):
            await kept.heads.witnessed(signed(note), NAME)
    assert list(kept.store.checkpoints(1)) == []


async def test_a_note_that_the_trail_did_not_sign_or_no_witness_is_refused(kept):
    note = head(kept)
    with pytest.raises(ChainBroken):
        await kept.heads.witnessed(parse_note(seal_checkpoint(note.checkpoint, OWN)), NAME)
    for name in (NAME, note.checkpoint.origin):
        with pytest.raises(InputError, match="no line"):
            await kept.heads.witnessed(note, name)


async def test_a_retired_key_cannot_put_a_checkpoint_of_its_own_into_the_trail(kept):
    await kept.log.rotate(fixed_signing_key(OTHER_KEY))
    await kept.append(1)
    now = head(kept)
    await kept.append(10)
    forged = parse_note(seal_checkpoint(now.checkpoint, fixed_signing_key()))  # true, but by who must not sign any more
    with pytest.raises(ChainBroken, match="is not signed by key"):
        await kept.heads.witnessed(signed(forged), NAME)
    both = replace(forged, signatures=(*forged.signatures, *now.signatures))
    await kept.heads.witnessed(signed(both), NAME)
    stored = kept.store.head()
    verify_trail(kept.store.read(1), stored[1], trusted(), claims=claims_of(kept.store.checkpoints(1)))


async def test_a_head_whose_event_has_left_the_live_store_is_told_as_that(kept):
    note = head(kept)
    await kept.append(600)
    await kept.keeper.look()
    kept.clock.advance(40 * 86_400)
    await kept.append(300)
    await kept.keeper.look()
    assert kept.events()[0].sequence > note.checkpoint.size
    with pytest.raises(InputError, match="has left the live store"):
        await kept.heads.witnessed(signed(note), NAME)


async def test_cosignatures_never_make_a_checkpoint_too_large_to_be_read(kept):
    note = head(kept)
    await kept.append(1)
    for low in range(0, 120, 30):
        many = note
        for number in range(low, low + 30):
            many = cosign(many, NAME, OWN, number)
        if low < 60:
            assert (await kept.heads.witnessed(many, NAME))["recorded"]
        else:
            with pytest.raises(InputError, match="at most 64 signatures"):
                await kept.heads.witnessed(many, NAME)
    name = "w" * 200
    with pytest.raises(InputError, match="name of a witness"):
        await kept.heads.witnessed(cosign(note, "w" * 65_000, OWN, 1), "w" * 65_000)
    await kept.heads.witnessed(cosign(note, name, OWN, 1), name)  # there are 61 lines, and room for three
    verify_trail(kept.store.read(1), kept.store.head()[1], trusted(), claims=claims_of(kept.store.checkpoints(1)))


# --- anchors ----------------------------------------------------------------------------------------


class Authority:
    """Stamps everything, unless it fails."""

    def __init__(self):
        self.asked = []
        self.failure = None

    async def __call__(self, data):
        self.asked.append(data)
        if self.failure is not None:
            raise self.failure
        return Stamped(b"token", rfc3339(1_767_322_999_000_000_000), "7", "https://tsa.example")


def anchored(kept, authority, **keywords):
    return Heads(kept.log, kept.store, kept.clock, trusted, stamp=authority, **keywords)


async def test_a_head_is_stamped_without_what_may_come_later(kept):
    authority = Authority()
    note = head(kept)
    await kept.heads.witnessed(signed(note), NAME)
    said = await anchored(kept, authority).anchor()
    size = note.checkpoint.size + 1  # that it was witnessed is an event
    assert said["size"] == size
    assert authority.asked == [stamped_bytes(checkpoint(kept, size))]
    assert [(one.size, one.token) for one in kept.store.anchors(1)] == [(size, b"token")]
    assert [
        event.details["size"] for event in kept.events() if event.event_type == AuditEventType.CHECKPOINT_ANCHORED
    ] == [size]
    assert stamped_bytes(signed(note)) == stamped_bytes(note) == Note(note.checkpoint, note.signatures).to_bytes()


async def test_two_who_anchor_at_once_keep_both_tokens(kept):
    heads = anchored(kept, Authority())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heads.anchor)
        tasks.start_soon(heads.anchor)
    size = 301
    assert [one.size for one in kept.store.anchors(1)] == [size, size + 1]


async def test_nothing_is_kept_where_the_authority_fails(kept):
    authority = Authority()
    authority.failure = Unavailable("not now")
    before = kept.log.sequence
    with pytest.raises(Unavailable, match="not now"):
        await anchored(kept, authority).anchor()
    assert (kept.store.anchors(1), kept.log.sequence) == ([], before)
    with pytest.raises(InputError, match="no time-stamping authority"):
        await kept.heads.anchor()


async def test_on_a_cadence_heads_are_stamped_where_there_is_news(kept):
    authority = Authority()
    heads = anchored(kept, authority, interval_s=60.0)
    await heads.look()
    await heads.look()
    assert len(authority.asked) == 1
    kept.clock.advance(60)
    await heads.look()
    assert len(authority.asked) == 1  # nothing since but the anchor itself
    await kept.append(1)
    kept.clock.advance(60)
    await heads.look()
    assert len(authority.asked) == 2


async def test_an_authority_that_fails_is_asked_again_later_and_later(kept, caplog):
    authority = Authority()
    authority.failure = Unavailable("not now")
    heads = anchored(kept, authority, interval_s=600.0)
    waits = []
    for _ in range(8):
        await heads.look()
        waits.append(heads._next_s - kept.clock.monotonic_s())
        await heads.look()
        kept.clock.advance(waits[-1])
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600]
    assert len(authority.asked) == 8
    authority.failure = None
    await heads.look()
    assert len(kept.store.anchors(1)) == 1


async def test_a_head_is_kept_as_it_stands(kept):
    note = await keep_head(kept.log, kept.store)
    assert note == head(kept) == checkpoint(kept, note.checkpoint.size)
    assert holds_more_than_keeping(kept.events())
