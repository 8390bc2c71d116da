"""`symbi policy set`: put other policies in force in a runtime that is alive."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from symbi.agent.journal import absolute
from symbi.api.client import ask_owner, connect_owner
from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.config import load_settings
from symbi.errors import StoreUnavailable
from symbi.tools.text import printable


def set_policies(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders, in place of all of `policy.paths`.")],
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Put other policies in force in the runtime that owns the data folder, until it ends."""
    with errors_to_exit(as_json=as_json):
        folder = load_settings(config).runtime.data_dir
        owner = connect_owner(folder)
        if owner is None:
            msg = f"no runtime is alive in `{folder}` whose policies could be set"
            hint = "at its start it reads `policy.paths`: change the files there"
            raise StoreUnavailable(msg, code="unavailable.control", hint=hint)
        said: Any = ask_owner(owner, "policy.set", {"paths": [absolute(str(path)) for path in paths]})
        if as_json:
            print_json(said)
            return
        out.print(f"{said['policies']} policies of {said['files']} files are in force")
        out.print(escape(printable(f"version {said['version']}, before {said['previous']}")))
