"""The one place that picks implementations: settings in, a running runtime out. It knows both sides and has no logic."""

from symbi.wiring.compliance import verified_trail
from symbi.wiring.discovery import find_servers
from symbi.wiring.people import folder_owner, registered_people
from symbi.wiring.policies import (
    known_pins,
    known_reviews,
    known_tools,
    load_policies,
    policies_in,
    policy_folders,
    read_policies,
    verify_policies,
)
from symbi.wiring.runtime import (
    open_runtime,
    probe,
    reading_mails,
    reading_vault,
    start_logging,
    verifying_keys,
)
from symbi.wiring.sandboxes import make_image
from symbi.wiring.servers import manifests
from symbi.wiring.sources import TrailReader, compile_agents, open_reader, read_text
from symbi.wiring.verification import on_all_cores

__all__ = [
    "TrailReader",
    "compile_agents",
    "find_servers",
    "folder_owner",
    "known_pins",
    "known_reviews",
    "known_tools",
    "load_policies",
    "make_image",
    "manifests",
    "on_all_cores",
    "open_reader",
    "open_runtime",
    "policies_in",
    "policy_folders",
    "probe",
    "read_policies",
    "read_text",
    "reading_mails",
    "reading_vault",
    "registered_people",
    "start_logging",
    "verified_trail",
    "verify_policies",
    "verifying_keys",
]
