import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbi.bus.window import Window

WIDTH = 16


def test_each_is_taken_once_in_any_order_within_the_window():
    window = Window(WIDTH)
    assert window.admit([3, 1, 2, 3, 2, 1, 4]) == [True, True, True, False, False, False, True]
    assert window.highest == 4


def test_what_is_too_far_behind_is_not_taken_though_it_never_came():
    window = Window(WIDTH)
    assert window.admit([100, 100 - WIDTH, 100 - WIDTH + 1]) == [True, False, True]


def test_before_the_first_nothing_comes():
    assert Window(WIDTH).admit([0, -1, 1]) == [False, False, True]


@given(st.lists(st.integers(0, 60), max_size=60), st.integers(0, 60))
def test_it_answers_as_a_set_of_all_that_has_come(sequences, restart_at):
    window, come, highest = Window(WIDTH), set(), 0
    for at, sequence in enumerate(sequences):
        if at == restart_at:
            window = Window.from_bytes(window.to_bytes())
        expected = sequence > 0 and sequence not in come and sequence > highest - WIDTH
        assert window.admit([sequence]) == [expected]
        come.add(sequence)
        highest = max(highest, sequence)


@given(st.lists(st.integers(1, 80), max_size=40), st.integers(0, 100))
def test_what_may_have_come_after_the_state_was_written_does_not_come_again(sequences, through):
    window = Window(WIDTH)
    window.admit(sequences)
    again = Window.from_bytes(window.to_bytes(), taken_through=through)
    assert not any(again.admit(sequences))
    assert not any(again.admit(range(1, through + 1)))
    assert again.admit([max(through, *sequences, 0) + 1]) == [True]


def test_where_it_stands_ahead_of_its_state_nothing_behind_that_comes():
    window = Window(WIDTH)
    window.admit([5])
    again = Window.from_bytes(window.to_bytes(), taken_through=9)
    assert again.highest == 9
    assert again.admit(range(1, 11)) == [False] * 9 + [True]


@pytest.mark.parametrize("width", [0, -8, 7, 12])
def test_a_width_that_is_none_is_refused(width):
    with pytest.raises(ValueError, match="multiple of 8"):
        Window(width)


@pytest.mark.parametrize("state", [b"", bytes(8)])
def test_bytes_that_are_no_state_are_refused(state):
    with pytest.raises(ValueError, match="more than 8 bytes"):
        Window.from_bytes(state)
