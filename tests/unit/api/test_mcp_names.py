"""Names outside: what all clients take, stable, and one for each thing."""

import re

from hypothesis import example, given
from hypothesis import strategies as st

from symbi.api.mcp.browsing import is_made_of
from symbi.api.mcp.names import MAX_NAME_CHARS, left_out, name_all, outside_name, settled, without_oldest

SERVERS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
TOOLS = st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True)
TAKEN = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # the strictest rule of common clients


@given(SERVERS, TOOLS)
@example("a__b", "c")
@example("a_", "_b")
@example("s", "x" * 128)
@example("s", "a.b")
def test_every_name_is_one_that_clients_take_and_does_not_change(server, tool):
    name = outside_name(server, tool)
    assert TAKEN.fullmatch(name)
    assert outside_name(server, tool) == name


@given(st.sets(st.tuples(SERVERS, TOOLS), max_size=30))
@example({("a__b", "c"), ("a", "b__c")})
@example({("a_", "b"), ("a", "_b")})
@example({("s", "a.b"), ("s", "a_b")})
@example({("s", "x" * 100), ("s", "x" * 101)})
def test_no_two_things_have_one_name_and_each_name_leads_back(things):
    named = name_all(things, prefixed=True)
    assert len(set(named.values())) == len(named)
    for name, whole in named.items():
        server, _, tool = whole.partition(".")
        assert (server, tool) in things
        assert outside_name(server, tool) == name
    assert len(left_out(things, named)) + len(named) == len(things)


def test_what_is_spelled_plainly_stays_readable():
    assert outside_name("mail", "send") == "mail__send"
    assert len(outside_name("mail", "send" * 40)) == MAX_NAME_CHARS


def test_what_two_servers_call_the_same_is_not_served_without_prefix():
    things = [("a", "read"), ("b", "read"), ("b", "send")]
    assert name_all(things, prefixed=False) == {"send": "b.send"}
    assert left_out(things, {"send": "b.send"}) == ["a.read", "b.read"]


def test_names_of_the_runtime_are_not_given_to_anybody():
    assert name_all([("a", "symbi__run_agent")], prefixed=False, taken=["symbi__run_agent"]) == {}


def test_a_uri_is_made_of_a_template_or_not():
    assert is_made_of("note://monday/1", "note://{day}/{n}")
    assert not is_made_of("note://monday", "note://{day}/{n}")
    assert not is_made_of("note://a/b", "note://{day}")
    assert is_made_of("file:///a/b/c", "file:///{+path}")
    assert not is_made_of("other://x", "note://{day}")
    assert not is_made_of("x", None)
    assert not is_made_of("x" * 10, "x" * 5000)


FEW = st.dictionaries(st.sampled_from("nmo"), st.sampled_from(["a.n", "b.n", "c.n"]))


@given(FEW, FEW, st.sets(st.sampled_from("nmo")), st.sets(st.sampled_from("abc")))
def test_a_name_goes_to_another_server_only_while_its_own_is_there(seen, named, twice, there):
    offered = {*named, *twice}
    named = {name: whole for name, whole in named.items() if name not in twice}
    found, known = settled(seen, named, offered, there.__contains__)
    assert all(named[name] == whole for name, whole in found.items()), "nothing is named that is not there"
    for name in {*seen, *named}:
        if name in seen and (name not in offered or (seen[name][0] not in there)):
            assert known[name] == seen[name]
            assert found.get(name, seen[name]) == seen[name]
        else:
            assert known.get(name) == found.get(name) == named.get(name)


@given(FEW, FEW, st.integers(0, 4), st.sets(st.sampled_from("abc")))
def test_of_the_names_that_have_been_seen_the_oldest_are_forgotten_that_stand_for_nothing(seen, named, most, away):
    seen = {**{name: whole for name, whole in seen.items() if name not in named}, **named}
    kept = without_oldest(seen, named, most, away)
    assert kept.items() <= seen.items()
    assert named.items() <= kept.items()
    assert len(kept) == max(min(most, len(seen)), len(named))


def test_a_server_cannot_have_the_names_of_one_that_is_away_forgotten():
    seen, gone = {"send": "away.send"}, {"away"}
    for change in range(10):
        there = [("here", f"t{change}{number}") for number in range(10)]
        if change == 9:
            there.append(("here", "send"))
        offered = [name for _, name in there]
        found, seen = settled(seen, name_all(there, prefixed=False), offered, lambda server: server not in gone)
        seen = without_oldest(seen, found, 20, gone)
        assert len(seen) <= 20
    assert "send" not in found
    assert seen["send"] == "away.send"
