"""`symbi audit rotate-key`: have the trail signed by another key from now on."""

from typing import Any

from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.cli.owner import ask_or_own
from symbi.config import load_settings
from symbi.tools.text import printable


def rotate_key(*, as_json: Json = False, config: Config = None) -> None:
    """Hand the trail over to its next signing key; the old one signs the event that says so, and nothing after it."""
    with errors_to_exit(as_json=as_json):
        said: Any = ask_or_own(load_settings(config), "audit.rotate-key", {})
        if as_json:
            print_json(said)
            return
        out.print(f"key [bold]{escape(printable(said['key_id']))}[/] signs from event {said['sequence'] + 1} on")
        out.print(f"  public key {escape(printable(said['public_key']))}")
        out.print(f"  before it {escape(printable(said['previous']))}, which stays: what it signed is verified with it")
