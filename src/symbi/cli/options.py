"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Config: TypeAlias = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file; else SYMBI_CONFIG_PATH, else the nearest symbi.toml."),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
Agents: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--agent-file", "-a", help="Also take the policies of this agent file.")
]
