"""Container sandboxes on a Docker Engine."""

from symbi.adapters.docker.container import LABEL_EFFECT, LABEL_INSTANCE, LABEL_RUN, DockerOptions
from symbi.adapters.docker.engine import Engine
from symbi.adapters.docker.image import write_root
from symbi.adapters.docker.reaper import Reaper, Swept
from symbi.adapters.docker.sandbox import DockerSandbox
from symbi.adapters.docker.serving import serve_from

__all__ = [
    "LABEL_EFFECT",
    "LABEL_INSTANCE",
    "LABEL_RUN",
    "DockerOptions",
    "DockerSandbox",
    "Engine",
    "Reaper",
    "Swept",
    "serve_from",
    "write_root",
]
