"""`symbi tools verify-skill`, `verify-listing` and `key`: under which key something is signed, and whether it is."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer
from rich.markup import escape

from symbi.cli.options import Config, Json
from symbi.cli.output import EXIT_VERIFICATION, errors_to_exit, exit_code, out, print_json
from symbi.cli.run import announce, run_to_end
from symbi.clock import SystemClock
from symbi.config import Settings, load_settings
from symbi.errors import InputError, InternalError, Overloaded, SignatureInvalid, StoreUnavailable, SymbiError
from symbi.tools.schemapin import PublicKey, entry_of, key_id, load_public_key, verify
from symbi.tools.schemapin.bundle import TrustBundle, refuse_ended, verify_bundle
from symbi.tools.schemapin.documents import Revocation, parse_discovery, parse_domain, parse_revocation, why_revoked
from symbi.tools.schemapin.lineage import why_ended
from symbi.tools.schemapin.listing import parse_listing
from symbi.tools.schemapin.skills import SIGNATURE_FILE, check_descent, parse_skill, verify_skill
from symbi.tools.text import printable
from symbi.types import OPERATOR_AGENT, JsonValue
from symbi.wiring import open_runtime, read_text, start_logging
from symbi.wiring.trust import read_bundle, skill_files

KeyFile: TypeAlias = Annotated[Path | None, typer.Option("--key", help="Public key of the signer, PEM.")]
BundleFile: TypeAlias = Annotated[Path | None, typer.Option("--bundle", help="A trust bundle that knows the signer.")]
Authority: TypeAlias = Annotated[
    list[Path] | None, typer.Option("--authority", help="Public key of who may have signed the bundle, PEM.")
]
Unsigned: TypeAlias = Annotated[
    bool, typer.Option("--unsigned-bundle", help="Take the bundle as it is, signed or not: you trust this file.")
]


@dataclass(frozen=True, slots=True)
class Offline:
    """Whom to believe without asking anybody.

    Attributes:
        key: The signer's.
        bundle: That knows the signer.
        authorities: Who may have signed that.
        unsigned: It is trusted as it is.
    """

    key: Path | None
    bundle: Path | None
    authorities: tuple[Path, ...]
    unsigned: bool

    def key_of(self, domain: str, now_ns: int) -> PublicKey:
        """The signer's key, if it was not revoked.

        Raises:
            InputError: It is not known, or given in two ways.
            SignatureInvalid: The bundle may not be believed, or says that the key is revoked.
        """
        if (self.key is None) == (self.bundle is None):
            raise InputError("give the signer's `--key`, or a `--bundle` that knows it", code="input.arguments")
        if self.key is not None:
            return load_public_key(read_text(self.key))
        bundle = self._trusted(read_bundle(self.bundle or Path()), now_ns)
        said, revoking = bundle.document(domain), bundle.revoking(domain)
        if said is None:
            raise InputError(f"{bundle.what} does not know `{domain}`", code="tool.discovery")
        found = parse_discovery(domain, said)
        lists: tuple[Revocation, ...] = () if revoking is None else (parse_revocation(domain, revoking),)
        ends = (found.expires_at_ns, *(one.expires_at_ns for one in lists))
        if any(end_ns is not None and now_ns >= end_ns for end_ns in ends):
            raise SignatureInvalid(f"a document of `{domain}` in {bundle.what} has ended", code="verify.expired")
        why = why_revoked(found.key, found, lists)
        if why:
            msg = f"key {key_id(found.key)[:23]} of `{domain}` may not be used: {why}"
            raise SignatureInvalid(msg, code="verify.revoked")
        return found.key

    def _trusted(self, bundle: TrustBundle, now_ns: int) -> TrustBundle:
        if self.unsigned:
            refuse_ended(bundle, now_ns)
        else:
            verify_bundle(bundle, [load_public_key(read_text(path)) for path in self.authorities], now_ns)
        return bundle


def verify_skill_folder(  # noqa: PLR0913 - one for each option
    folder: Annotated[Path, typer.Argument(help="A folder with a file .schemapin.sig.")],
    *,
    domain: Annotated[str, typer.Option(help="Who must have signed it; else anybody whom the bundle knows may.")] = "",
    key: KeyFile = None,
    bundle: BundleFile = None,
    authority: Authority = None,
    unsigned_bundle: Unsigned = False,
    covered: Annotated[
        bool,
        typer.Option("--covered", help="Name, version, end and list of files must be signed too, as we sign them."),
    ] = False,
    succeeds: Annotated[
        str, typer.Option(help="`skill_hash` that you know: it must be that one, or say that it succeeds it.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Check a skill folder against its signature, without a network: every file, and nothing else. Exit code 4: no."""
    with errors_to_exit(as_json=as_json):
        now_ns = SystemClock().now_ns()
        files, raw = skill_files(folder)
        if raw is None:
            raise SignatureInvalid(f"`{folder}` has no `{SIGNATURE_FILE}`", code="verify.skill")
        document = parse_skill(raw)
        whose = parse_domain(document["domain"])
        if domain and parse_domain(domain) != whose:
            raise SignatureInvalid(
                f"`{folder}` is signed by `{whose}`, not `{parse_domain(domain)}`", code="verify.skill"
            )
        trusted = Offline(key, bundle, tuple(authority or ()), unsigned_bundle).key_of(whose, now_ns)
        found = verify_skill(files, document, trusted, now_ns)
        if covered and not found.covered:
            msg = f"only the content of skill `{found.name}` is signed, not what stands beside it"
            raise SignatureInvalid(msg, code="verify.skill")
        if succeeds:
            check_descent(found, succeeds)
        if as_json:
            print_json({
                "skill": found.name, "domain": found.domain, "hash": found.skill_hash, "form": found.form.value,
                "covered": found.covered, "version": found.version, "files": len(files), "key": key_id(trusted),
                "warnings": list(found.warnings),
            })  # fmt: skip
            return
        version = f", version {escape(found.version)}" if found.version else ""
        out.print(f"[green]verified[/] {escape(found.name)} of {escape(found.domain)}{version}: {len(files)} files")
        for warning in found.warnings:
            out.print(f"  [yellow]{escape(warning)}[/]")


def verify_tool_listing(
    listing: Annotated[
        Path, typer.Argument(help="An answer to `tools/list`, as JSON, with signatures in its `_meta`.")
    ],
    *,
    domain: Annotated[str, typer.Option(help="Whose tools they are; with a --bundle.")] = "",
    key: KeyFile = None,
    bundle: BundleFile = None,
    authority: Authority = None,
    unsigned_bundle: Unsigned = False,
    as_json: Json = False,
) -> None:
    """Check every tool of a listing against its signature, without a server or network. Exit code 4 if one does not hold."""
    with errors_to_exit(as_json=as_json):
        now_ns = SystemClock().now_ns()
        if bundle is not None and not domain:
            raise InputError("a `--bundle` knows many: say by `--domain` whose tools they are", code="input.arguments")
        whose = parse_domain(domain) if domain else ""
        trusted = Offline(key, bundle, tuple(authority or ()), unsigned_bundle).key_of(whose, now_ns)
        rows: list[dict[str, JsonValue]] = []
        for definition in parse_listing(read_text(listing)):
            try:
                entry = entry_of(definition)
                form = None if entry is None else verify(definition, entry.signature, trusted).value
                why = "it is not signed" if entry is None else why_ended(entry, now_ns)
            except SymbiError as error:
                form, why = None, error.message
            rows.append({"tool": printable(definition.name), "verified": not why, "detail": why or str(form)})
        if as_json:
            print_json(rows)
        for row in [] if as_json else rows:
            mark = "[green]verified[/]" if row["verified"] else "[bold red]refused[/] "
            out.print(f"{mark} {escape(str(row['tool']))} [dim]{escape(str(row['detail']))}[/]")
        if not all(row["verified"] for row in rows):
            raise typer.Exit(EXIT_VERIFICATION)


def show_key(
    servers: Annotated[list[str] | None, typer.Argument(help="Servers; all configured ones if none is named.")] = None,
    *,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Connect servers and show under which key their tools are to be signed, to compare before one is accepted.

    One that cannot be connected stops no other: it is said, and the exit code is that of its failure.
    """
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        start_logging(settings)
        rows, codes = run_to_end(partial(_keys, settings, list(servers or ())), settings)
        if as_json:
            print_json(rows)
        elif not rows:
            out.print("no tool server is configured")
        for row in [] if as_json else rows:
            if row["key"]:
                whose = f" ({escape(str(row['developer']))})" if row["developer"] else ""
                agreed = ", and DNS says the same" if row["dns"] else ""
                where = escape(str(row["source"]))
                out.print(f"[bold]{escape(str(row['server']))}[/]: {row['key']}{whose}, from {where}{agreed}")
            if row["error"]:
                out.print(f"[bold]{escape(str(row['server']))}[/]: [red]{escape(printable(str(row['error'])))}[/]")
        if codes:
            raise typer.Exit(codes[0])


async def _keys(settings: Settings, servers: list[str]) -> tuple[list[dict[str, JsonValue]], list[int]]:
    """What there is to say of each server's key; and the exit code of each server that cannot be connected, which stops no other."""
    rows: list[dict[str, JsonValue]] = []
    codes: list[int] = []
    async with open_runtime(settings) as runtime:
        announce(runtime)
        for name in [runtime.catalog.link(one).name for one in servers or runtime.catalog.servers]:
            failed: SymbiError | None = None
            try:
                await runtime.connect([name], settings.principal(OPERATOR_AGENT))
            except (StoreUnavailable, Overloaded, InternalError):
                raise
            except SymbiError as error:
                failed = error
                codes.append(exit_code(error))
            found = runtime.catalog.verifier.trust_of(name)
            none = "it has neither `public_key` nor `schemapin_domain`" if found.key is None else ""
            wrong = failed or found.error
            rows.append({
                "server": name, "key": "" if found.key is None else key_id(found.key), "developer": found.developer,
                "source": found.source or "public_key", "dns": found.dns,
                "error": wrong.message if wrong is not None else none,
            })  # fmt: skip
    return rows, codes
