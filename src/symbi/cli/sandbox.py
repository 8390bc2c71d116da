"""`symbi sandbox`: what container tiers need."""

import platform
import re
from pathlib import Path
from typing import Annotated, Final

import anyio
import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.config import load_settings
from symbi.errors import InputError
from symbi.wiring import make_image

app = typer.Typer(help="Make what container sandboxes need.", no_args_is_help=True)

NAME: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+){0,8}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,60})?", re.ASCII)


@app.command("image")
def image(
    *,
    program: Annotated[
        list[Path] | None,
        typer.Option("--program", metavar="PATH", help="Also put this program in, with its libraries; repeatable."),
    ] = None,
    name: Annotated[
        str, typer.Option("--name", metavar="NAME[:TAG]", help="What the engine calls it, for people.")
    ] = f"symbi-python:{platform.python_version()}",
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Make a minimal image of this machine's Python, without a network, and print its id for `sandbox.image`."""
    with errors_to_exit(as_json=as_json):
        if not NAME.fullmatch(name):
            msg = f"`{name}` is no name of an image"
            raise InputError(msg, code="input.usage", hint="lower-case letters and digits, e.g. `symbi-python:1`")
        made = anyio.run(make_image, load_settings(config), tuple(program or ()), name)
        if as_json:
            print_json({"image": made, "name": name})
            return
        out.print(f'[bold]{escape(made)}[/]\nput it into the configuration:\n\n\\[sandbox]\nimage = "{escape(made)}"')
