"""What of a server's messages goes on, and which of its addresses are connected, whatever it says."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from symbi.adapters.mcp.bounded import _since_event
from symbi.adapters.mcp.network import PRIVATE, why_refused
from symbi.adapters.mcp.traffic import (
    MAX_ASKING,
    MAX_OTHERS,
    MAX_TOLD,
    MAX_UNASKED_BYTES,
    MIN_MESSAGE_COST_BYTES,
    Fault,
    Traffic,
)
from symbi.sandbox.addresses import why_not_public

IDS = st.integers(0, 5) | st.sampled_from(["0", "1", "x"])
STEPS = st.lists(
    st.tuples(st.sampled_from(["send", "cancel", "answer", "error", "ask", "reply", "note", "noise"]), IDS), max_size=60
)


@given(STEPS)
def test_each_request_of_ours_is_answered_at_most_once_and_no_other_answer_goes_on(steps):
    traffic, waiting, asking = Traffic(), set(), set()
    for what, number in steps:
        key = str(number)
        match what:
            case "send":
                traffic.sent(JSONRPCRequest(jsonrpc="2.0", id=number, method="tools/call"))
                waiting.add(key)
            case "cancel":
                gone = {"requestId": number}
                traffic.sent(JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params=gone))
                waiting.discard(key)
            case "answer" | "error":
                answers = {
                    "answer": JSONRPCResponse(jsonrpc="2.0", id=number, result={}),
                    "error": JSONRPCError(jsonrpc="2.0", id=number, error={"code": 1, "message": "x"}),
                }
                assert traffic.admits(answers[what], 1) is (key in waiting)
                waiting.discard(key)
            case "ask":
                question = JSONRPCRequest(jsonrpc="2.0", id=number, method="roots/list")
                assert traffic.admits(question, 1) is (key not in asking)
                asking.add(key)
            case "reply":
                traffic.sent(JSONRPCResponse(jsonrpc="2.0", id=number, result={}))
                asking.discard(key)
            case "note":
                progress = JSONRPCNotification(jsonrpc="2.0", method="notifications/progress", params={})
                assert traffic.admits(progress, 1)
            case _:
                noise = JSONRPCNotification(jsonrpc="2.0", method="notifications/else", params={})
                assert not traffic.admits(noise, 1)
        assert len(asking) <= MAX_ASKING


@given(st.sampled_from(["progress", "message", "tools/list_changed"]), st.integers(1, 3 * MAX_TOLD))
def test_of_a_flood_no_more_goes_on_than_anybody_could_use_until_we_ask_again(kind, count):
    traffic = Traffic()
    note = JSONRPCNotification(jsonrpc="2.0", method=f"notifications/{kind}", params={})
    most = MAX_OTHERS if kind.startswith("tools") else MAX_TOLD
    assert sum(traffic.admits(note, 1) for _ in range(count)) == min(count, most)
    traffic.sent(JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/list"))
    assert traffic.admits(note, 1)


@given(st.lists(st.integers(0, MAX_UNASKED_BYTES // 4), min_size=1, max_size=40))
def test_what_answers_nothing_is_bounded_in_bytes_and_in_number(sizes):
    traffic, total = Traffic(), 0
    for size in sizes:
        total += max(size, MIN_MESSAGE_COST_BYTES)
        try:
            traffic.count(size)
        except Fault:
            assert total > MAX_UNASKED_BYTES
            return
        assert total <= MAX_UNASKED_BYTES


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address), st.booleans())
def test_no_address_is_connected_that_is_not_public_or_allowed_by_name(address, private):
    why = why_not_public(str(address))
    refused = why_refused("tools.example", str(address), private=private)
    assert bool(refused) is (bool(why) and not (private and why in PRIVATE))
    if address.is_link_local:
        assert refused


@given(st.lists(st.sampled_from([b"data: x\n", b"\n", b"\r\n", b"\r", b"x" * 50, b"\n\n"]), max_size=40), st.data())
def test_an_event_is_never_counted_shorter_than_it_is(parts, data):
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    counted, tail, done = 0, b"", b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        chunk = stream[start:end]
        counted, tail = _since_event(chunk, counted, tail)
        done += chunk
        last = max(done.rfind(gap) + len(gap) if gap in done else 0 for gap in (b"\n\n", b"\r\n\r\n", b"\r\r"))
        assert counted >= len(done) - last
