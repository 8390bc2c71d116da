"""`symbi policy sign`: the signature that `policy.require_signed` asks for, beside the files that it is about."""

import os
import stat
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symbi.cli.options import Json
from symbi.cli.output import errors_to_exit, out, print_json
from symbi.crypto.pem import make_pem_pair, read_signing_key
from symbi.crypto.provider import open_provider
from symbi.errors import InputError
from symbi.runtime.policy_signing import serial_in, sign_bundle
from symbi.wiring import policy_folders, read_text


def sign(
    path: Annotated[Path, typer.Argument(help="A folder or file of `policy.paths`.")],
    *,
    key: Annotated[Path, typer.Option(help="PEM file of an Ed25519 private key.")],
    new_key: Annotated[bool, typer.Option("--new-key", help="Make the key first, and KEY.pub beside it.")] = False,
    name: Annotated[
        str | None, typer.Option("--set", help="Name of the set; else the one it was signed under, or the folder's.")
    ] = None,
    serial: Annotated[int | None, typer.Option(help="Else one more than it was signed with.")] = None,
    as_json: Json = False,
) -> None:
    """Sign the policies of a folder: all of them, so that none can be changed, added, removed or put back."""
    with errors_to_exit(as_json=as_json):
        if new_key:
            _make_key(key)
        _refuse_open(key)
        signing_key = read_signing_key(read_text(key).encode(), open_provider())
        folders = policy_folders(Path.cwd())
        (bundle,) = folders.read((str(path),))
        if not bundle.files:
            msg = f"there are no policies in `{path}`"
            raise InputError(msg, code="input.unreadable")
        before = serial_in(bundle)
        chosen = name or (before[0] if before else path.resolve().stem)
        number = serial if serial is not None else 1 + (before[1] if before else 0)
        target = folders.manifest_of(str(path))
        _write(target, sign_bundle(bundle, signing_key, name=chosen, serial=number))
        if as_json:
            files = [file.name for file in bundle.files]
            key_id = signing_key.key_id
            print_json({"manifest": str(target), "set": chosen, "serial": number, "key_id": key_id, "files": files})
        else:
            out.print(
                f"signed {len(bundle.files)} files in {escape(str(target))}: set {escape(chosen)}, serial {number}, "
                f"key {signing_key.key_id}"
            )


def _make_key(path: Path) -> None:
    private, public = make_pem_pair()
    public_path = path.with_name(path.name + ".pub")
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(private)
        public_path.write_bytes(public)
    except OSError as error:
        msg = f"cannot make the key `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error
    out.print(f"made {escape(str(path))} and {escape(str(public_path))}")


def _refuse_open(path: Path) -> None:
    """Refuse a private key that others can read."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        msg = f"cannot read `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unreadable", hint="`--new-key` makes it") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        msg = f"the key `{path}` is open to others"
        raise InputError(msg, code="crypto.key_file", hint=f"chmod 600 {path}")


def _write(target: Path, data: bytes) -> None:
    """Put a manifest in its place, whole."""
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        try:
            beside.write_bytes(data)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        msg = f"cannot write `{target}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error
