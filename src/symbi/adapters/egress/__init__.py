"""The proxy through which a sandbox reaches what it is granted of the network, and nothing else."""

from symbi.adapters.egress.outward import Dial, Resolve, dial, resolve
from symbi.adapters.egress.proxy import EgressProxy
from symbi.adapters.egress.record import About
from symbi.adapters.egress.session import EgressSession

__all__ = ["About", "Dial", "EgressProxy", "EgressSession", "Resolve", "dial", "resolve"]
