"""`symbi tools keygen`, `sign`, `sign-skill` and `sign-bundle`: what an owner of tools does, mostly without a server."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import err, errors_to_exit, out, print_json
from symbi.cli.run import run_to_end
from symbi.clock import SystemClock
from symbi.config import Settings, load_settings
from symbi.errors import InputError, PinMismatch
from symbi.tools.reviewing import ToolReviews
from symbi.tools.schemapin import key_id, load_private_key, load_public_key, make_key_pair, sign_definitions
from symbi.tools.schemapin.bundle import sign_bundle
from symbi.tools.schemapin.documents import parse_discovery, parse_domain, parse_revocation
from symbi.tools.schemapin.listing import SigningTerms, hashes_of, parse_listing, signed_entries, with_entries
from symbi.tools.schemapin.skills import SkillTerms, sign_skill
from symbi.tools.text import printable, shown_name
from symbi.wiring import open_runtime, read_text, start_logging
from symbi.wiring.trust import put_skill_signature, skill_files

PrivateKeyFile: TypeAlias = Annotated[Path, typer.Option("--key", help="Private key, PEM, P-256.")]
Output: TypeAlias = Annotated[Path | None, typer.Option("--output", "-o", help="File to write; else it is printed.")]
Days: TypeAlias = Annotated[
    int | None, typer.Option("--expires-in", min=1, max=3650, help="Days until it ends; else it does not.")
]
Version: TypeAlias = Annotated[str, typer.Option("--schema-version", help="The version that it is, e.g. 2.1.0.")]


def keygen(
    path: Annotated[Path, typer.Argument(help="File for the private key; its public half gets the ending .pub.")],
    *,
    document: Annotated[
        Path | None, typer.Option(help="Also write what to publish at https://DOMAIN/.well-known/schemapin.json.")
    ] = None,
    developer: Annotated[str, typer.Option(help="Who signs, as people know it; stands in the document.")] = "",
    as_json: Json = False,
) -> None:
    """Make a key that signs tools, and say its fingerprint; nothing that exists is touched."""
    with errors_to_exit(as_json=as_json):
        if document is not None and os.path.lexists(document):
            msg = f"cannot write `{document}`: it is there already"
            raise InputError(msg, code="input.unwritable")
        public = make_key_files(path)
        name = key_id(load_public_key(public))
        if document is not None:
            content = {"schema_version": "1.4", "developer_name": developer, "public_key_pem": public.decode("ascii")}
            write_new(document, json.dumps(content | {"revoked_keys": []}, indent=2) + "\n")
        if as_json:
            print_json({"key": str(path), "public_key": f"{path}.pub", "fingerprint": name})
            return
        out.print(f"made {escape(str(path))} and {escape(str(path))}.pub: {name}")
        out.print(f"for DNS: _schemapin.DOMAIN TXT [bold]v=schemapin1; fp={name}[/]")


def sign(  # noqa: PLR0913 - one for each option
    server: Annotated[str | None, typer.Argument(help="A configured server; or give a --listing.")] = None,
    *,
    key: PrivateKeyFile,
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Make the key first; its public half gets the ending .pub.")
    ] = False,
    listing: Annotated[
        Path | None, typer.Option(help="An answer to `tools/list`, as JSON: it comes back with its signatures in it.")
    ] = None,
    version: Version = "",
    previous: Annotated[
        Path | None, typer.Option(help="What was signed before: the tools say that they succeed those in it.")
    ] = None,
    expires_in: Days = None,
    refused: Annotated[
        bool,
        typer.Option(
            "--refused", help="Also tools that were rejected or revoked, have changed, or are held; they are named."
        ),
    ] = False,
    output: Output = None,
    config: Config = None,
) -> None:
    """Sign all that a server offers (SchemaPin, ECDSA P-256): signature by tool, for the server to send along.

    Where anything but a signature stands against one of its tools, nothing is signed, unless that is meant. Exit code 4.
    """
    with errors_to_exit():
        if (server is None) == (listing is None):
            msg = "name a configured server, or a `--listing`"
            raise InputError(msg, code="input.arguments")
        if new_key:
            make_key_files(key)
        private = read_text(key)
        terms = SigningTerms(version, _end(expires_in), None if previous is None else hashes_of(read_text(previous)))
        if listing is not None:
            text = read_text(listing)
            definitions = parse_listing(text)
            entries = signed_entries(definitions, load_private_key(private), terms)
            content: Mapping[str, Any] = with_entries(text, entries)
            count, whose = len(entries), str(listing)
        else:
            settings = load_settings(config)
            start_logging(settings)
            content = run_to_end(partial(_sign, settings, server or "", private, terms, refused=refused), settings)
            count, whose = len(content), server or ""
        _give(output, content, f"signed {count} tools of {whose}")


async def _sign(
    settings: Settings, server: str, private: str, terms: SigningTerms, *, refused: bool
) -> Mapping[str, Any]:
    """Signatures alone where nothing is said beside them, as servers have sent them along so far.

    Raises:
        PinMismatch: Something stands against a tool, and that was not said to be meant.
    """
    from symbi.types import OPERATOR_AGENT  # noqa: PLC0415 - with the runtime alone

    async with open_runtime(settings) as runtime:
        await runtime.connect([server], settings.principal(OPERATOR_AGENT))
        offered = runtime.catalog.offered(server)  # once: what is looked at is what is signed
        against = await ToolReviews(runtime.catalog).against(server, offered)
        if against and not refused:
            told = "; ".join(f"`{shown_name(name)}`: {printable(why)}" for name, why in against.items())
            msg = f"nothing of `{server}` is signed, for these tools are refused: {told}"
            hint = "`symbi tools review` shows them; `--refused` signs them all the same"
            raise PinMismatch(msg, hint=hint, server=server)
        for name, why in against.items():
            err.print(f"signing {escape(shown_name(name))} all the same: {escape(printable(why))}")
        if terms == SigningTerms():
            return dict(sign_definitions(offered, private))
        return signed_entries(offered, load_private_key(private), terms)


def sign_skill_folder(  # noqa: PLR0913 - likewise
    folder: Annotated[Path, typer.Argument(help="The folder; its file .schemapin.sig is written anew.")],
    *,
    key: PrivateKeyFile,
    domain: Annotated[str, typer.Option(help="Who signs, e.g. tools.example.com.")],
    name: Annotated[str, typer.Option(help="Of the skill; else that of the folder.")] = "",
    version: Version = "",
    previous: Annotated[str, typer.Option(help="`skill_hash` of the version before.")] = "",
    expires_in: Days = None,
    as_json: Json = False,
) -> None:
    """Sign every file of a skill folder, and their list. Links in it are refused."""
    with errors_to_exit(as_json=as_json):
        private = load_private_key(read_text(key))
        files, _ = skill_files(folder)
        terms = SkillTerms(name or folder.resolve().name, domain, _now(), _end(expires_in), version, previous)
        document = sign_skill(files, terms, private)
        path = put_skill_signature(folder, (json.dumps(document, indent=2) + "\n").encode())
        if as_json:
            print_json(document)
            return
        out.print(f"signed {len(files)} files in {escape(str(path))}: {document['skill_hash']}")


def sign_trust_bundle(
    documents: Annotated[list[str], typer.Argument(help="DOMAIN=FILE: a discovery document, or one of revocations.")],
    *,
    key: PrivateKeyFile,
    kid: Annotated[str, typer.Option(help="How you call the key.")],
    expires_in: Days = None,
    output: Output = None,
) -> None:
    """Put discovery and revocation documents into one bundle and sign it, for those who verify without a network."""
    with errors_to_exit():
        private = load_private_key(read_text(key))
        content: dict[str, list[dict[str, Any]]] = {"documents": [], "revocations": []}
        for one in documents:
            domain, equals, path = one.partition("=")
            if not equals:
                raise InputError(f"`{one}` is no DOMAIN=FILE", code="input.arguments")
            text, domain = read_text(Path(path)).encode(), parse_domain(domain)
            kind = "documents" if b'"public_key_pem"' in text else "revocations"
            (parse_discovery if kind == "documents" else parse_revocation)(domain, text)
            content[kind].append({**json.loads(text), "domain": domain})
        signed = sign_bundle(content, private, kid, _now(), _end(expires_in) or None)
        _give(
            output, signed, f"signed a bundle of {len(content['documents'])} domains by {key_id(private.public_key())}"
        )


def make_key_files(path: Path) -> bytes:
    """A key pair in two files, and its public half.

    Raises:
        InputError: They cannot be written, or one is there.
    """
    private, public = make_key_pair()
    public_path = path.with_name(path.name + ".pub")
    there = next((one for one in (path, public_path) if os.path.lexists(one)), None)
    if there is not None:
        raise InputError(f"cannot make the key `{path}`: `{there}` is there already", code="input.unwritable")
    try:
        for one, content, mode in ((public_path, public, 0o644), (path, private, 0o600)):
            with os.fdopen(os.open(one, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(content)
    except OSError as error:
        msg = f"cannot make the key `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error
    return public


def write_new(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        InputError: It cannot be.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"cannot write `{path}`: {error.strerror or error}"
        raise InputError(msg, code="input.unwritable") from error


def _give(output: Path | None, content: Mapping[str, Any], done: str) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if output is None:
        out.print(escape(text), end="")
        return
    write_new(output, text)
    out.print(f"{escape(done)} in {escape(str(output))}")


def _now() -> str:
    return _time(SystemClock().now_ns() // 1_000_000_000)


def _end(days: int | None) -> str:
    return "" if days is None else _time(SystemClock().now_ns() // 1_000_000_000 + days * 86_400)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
