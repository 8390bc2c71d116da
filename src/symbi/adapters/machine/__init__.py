"""What this machine can do: the facts behind `symbi doctor`."""

from symbi.adapters.machine.engine import Wanted, probe_engine
from symbi.adapters.machine.finding import Finding
from symbi.adapters.machine.probes import (
    Capacity,
    machine_capacity,
    probe_clock,
    probe_data_folder,
    probe_disk,
    probe_interpreter,
    probe_keyring,
    probe_machine,
    probe_python,
    probe_terminal,
)

__all__ = [
    "Capacity",
    "Finding",
    "Wanted",
    "machine_capacity",
    "probe_clock",
    "probe_data_folder",
    "probe_disk",
    "probe_engine",
    "probe_interpreter",
    "probe_keyring",
    "probe_machine",
    "probe_python",
    "probe_terminal",
]
