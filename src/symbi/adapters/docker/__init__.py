"""Container sandboxes on a Docker Engine."""

from symbi.adapters.docker.container import LABEL_EFFECT, LABEL_INSTANCE, LABEL_RUN, DockerOptions
from symbi.adapters.docker.engine import DEFAULT_HOST, Engine
from symbi.adapters.docker.image import write_root
from symbi.adapters.docker.reaper import reap, reaping
from symbi.adapters.docker.sandbox import DockerSandbox

__all__ = [
    "DEFAULT_HOST",
    "LABEL_EFFECT",
    "LABEL_INSTANCE",
    "LABEL_RUN",
    "DockerOptions",
    "DockerSandbox",
    "Engine",
    "reap",
    "reaping",
    "write_root",
]
