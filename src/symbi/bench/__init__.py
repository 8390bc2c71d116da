"""The measurements behind `symbi bench`: each row has its target, its method and its machine."""

from symbi.bench.measure import Measurement, Scale, Target
from symbi.bench.registry import BENCHMARKS, Benchmark, choose, run_benchmarks
from symbi.bench.report import as_page, as_table, how_measured, to_json

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "Measurement",
    "Scale",
    "Target",
    "as_page",
    "as_table",
    "choose",
    "how_measured",
    "run_benchmarks",
    "to_json",
]
