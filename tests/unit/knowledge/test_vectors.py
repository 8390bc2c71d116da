"""Values of the index: what can be none is refused where it is made."""

from uuid import UUID

import numpy as np
import pytest

from symbi.errors import ConfigError, InputError
from symbi.knowledge.config import LEAST_CANDIDATES, Quantization, VectorConfig, kib
from symbi.knowledge.vectors import (
    MAX_RESULTS,
    Between,
    Filter,
    Namespace,
    OneOf,
    Scope,
    VectorPoint,
    VectorQuery,
    VectorSpace,
    unit,
)

HERE = Namespace("Memory", "notes", "agent")
ONES = np.ones(4, np.float32)


def test_nobody_means_everybody():
    with pytest.raises(InputError, match="name the namespaces"):
        Scope(())
    with pytest.raises(TypeError):
        Scope()
    with pytest.raises(TypeError):
        VectorQuery(ONES, 3)


@pytest.mark.parametrize(
    "parts", [("Tool", "x"), ("Memory", ""), ("", "x"), ("Memory", "\ud800"), ("Memory", "x", "\udfff")]
)
def test_what_is_no_namespace(parts):
    with pytest.raises(InputError):
        Namespace(*parts)


@pytest.mark.parametrize("text", ["", "a", "Memory/x", "Memory/x/y/z", "Tool/x/"])
def test_what_is_no_text_of_a_namespace(text):
    with pytest.raises(InputError):
        Namespace.parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OneOf("a", ()),
        lambda: OneOf("a", ("x", 1)),
        lambda: OneOf("a", (True,)),
        lambda: OneOf("a", (1.5,)),
        lambda: OneOf("namespace", ("x",)),
        lambda: OneOf("A", ("x",)),
        lambda: OneOf("a.b", ("x",)),
        lambda: OneOf("a", (2**53 + 1,)),
        lambda: Between("a"),
        lambda: Between("a", float("nan")),
        lambda: Between("a", None, float("inf")),
        lambda: Between("a", True),
        lambda: Between("", 1),
    ],
)
def test_what_no_index_can_be_asked(make):
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize(
    "payload",
    [
        {"namespace": "x"},
        {"a": None},
        {"a": float("nan")},
        {"a": 2**60},
        {"a": ("x", 1)},
        {"a": ["x"]},
        {"a": "\ud800"},
        {"a": "x" * 70_000},
        {"": "x"},
        {"a": {"b": 1}},
    ],
)
def test_what_an_index_could_not_give_back(payload):
    with pytest.raises(InputError):
        VectorPoint(UUID(int=1), ONES, HERE, payload)


@pytest.mark.parametrize("vector", [[], [[1.0]], [float("nan")], [1.0, float("inf")], [1e39]])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_what_is_no_vector(vector):
    with pytest.raises(InputError):
        VectorPoint(UUID(int=1), vector, HERE)
    with pytest.raises(InputError):
        VectorQuery(vector, 1, Scope((HERE,)))


@pytest.mark.parametrize(
    "how", [{"k": 0}, {"k": MAX_RESULTS + 1}, {"k": 1, "oversampling": 0.5}, {"k": 1, "oversampling": 101}]
)
def test_what_no_query_asks(how):
    with pytest.raises(InputError):
        VectorQuery(ONES, scope=Scope((HERE,), Filter()), **how)


def test_a_vector_of_another_space_is_told_both_lengths():
    with pytest.raises(InputError, match="4 dimensions, and the index 3"):
        VectorSpace("m", "d", 3).check(ONES)
    with pytest.raises(InputError):
        VectorSpace("m", "d", 0)


def test_a_direction_has_length_one_and_zeros_have_none():
    assert np.isclose(np.linalg.norm(unit(ONES * 1e30)), 1)
    assert not unit(ONES * 0).any()


def test_the_values_of_an_index_are_those_that_are_published():
    config = VectorConfig()
    assert (config.m, config.ef_construct, config.distance) == (16, 200, "cosine")
    assert config.quantization is Quantization.TURBO4
    assert config.candidates(10, None) == 4  # few hits: at least so many candidates as cost nothing
    assert config.candidates(1, None) == LEAST_CANDIDATES
    assert config.candidates(1000, None) == config.oversampling
    assert config.candidates(10, 1.5) == 1.5
    assert VectorConfig(quantization=Quantization.NONE).candidates(10, 4) is None


def test_engines_are_told_in_kib_what_is_meant_in_points():
    assert kib(20_000, 1_536) == 120_000
    assert kib(20_000, 256) == 20_000
    assert kib(1, 1) == 1
    assert VectorConfig().graph_from * 2 == VectorConfig().scan_below


@pytest.mark.parametrize(
    "how", [{"m": 1}, {"ef_construct": 5000}, {"distance": "euclid"}, {"oversampling": 0.1}, {"scan_below": 1}]
)
def test_values_that_no_engine_takes(how):
    with pytest.raises(ConfigError):
        VectorConfig(**how)
