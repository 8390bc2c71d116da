"""`symbi approvals`: see what waits for people, and answer it; through the owner of the data folder, or in its place."""

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.markup import escape

from symbi.api.approvals import record_json, row_json
from symbi.api.client import ask_owner, connect_owner
from symbi.cli.options import Config, Json
from symbi.cli.output import err, errors_to_exit, out, print_json
from symbi.cli.owner import own
from symbi.cli.run import run_to_end
from symbi.clock import SystemClock, parse_rfc3339, random_bytes
from symbi.config import Settings, load_settings
from symbi.crypto.canonical import canonical_json
from symbi.crypto.provider import open_provider
from symbi.crypto.signing import SigningKey
from symbi.errors import InputError, SymbiError
from symbi.guard.approval import MAX_REASON_CHARS, OPEN, ApprovalState, statement
from symbi.guard.desk import MAX_LISTED
from symbi.guard.people import VOTE_DOMAIN
from symbi.tools.text import printable
from symbi.types import JsonValue
from symbi.wiring import open_reader, read_text, registered_people, start_logging

app = typer.Typer(help="See what waits for people, and answer it.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The approval; `symbi approvals list` shows what waits.")]
Reason = Annotated[str, typer.Option(help="What you say to it; it stands in the trail, and a no reaches the agent.")]
Signed = Annotated[Path | None, typer.Option("--signature", help="A vote that `symbi approvals sign` made.")]

KEY_DIGITS: Final = 64  # an Ed25519 seed in hexadecimal


@app.command("list")
def list_approvals(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Also what is over.")] = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """List the actions that wait for people."""
    with errors_to_exit(as_json=as_json):
        rows: Any = _ask(load_settings(config), "approvals.list", {"all": everything})
        if as_json:
            print_json(rows)
            return
        if not rows:
            out.print("nothing waits for people")
            return
        for row in rows:
            if "fault" in row:
                out.print(f"[bold]{escape(printable(row['id']))}[/] [red]altered[/]: {escape(row['fault'])}")
                continue
            asks = "; ".join(ask["text"] for ask in row["asks"])
            out.print(f"[bold]{escape(row['id'])}[/] {_state(row)}")
            what = printable(f"{row['agent']}: {row['action']} on {row['resource']}")
            out.print(f"  {escape(what)} [dim]{escape(printable(asks))}[/]")


@app.command("show")
def show(approval_id: Id, *, as_json: Json = False, config: Config = None) -> None:
    """Show one: who asks for what, with which arguments, whose data is in them, which policy wants people, who voted."""
    with errors_to_exit(as_json=as_json):
        row: Any = _ask(load_settings(config), "approvals.show", {"id": approval_id})
        if as_json:
            print_json(row)
        else:
            _print(row)


@app.command("approve")
def approve(
    approval_id: Id, *, reason: Reason = "", signature: Signed = None, as_json: Json = False, config: Config = None
) -> None:
    """Agree to a held action, as the operating-system user that you are or by a signed vote."""
    _vote("approve", approval_id, reason, signature, as_json=as_json, config=config)


@app.command("deny")
def deny(
    approval_id: Id, *, reason: Reason = "", signature: Signed = None, as_json: Json = False, config: Config = None
) -> None:
    """Refuse a held action; it is denied for good."""
    _vote("deny", approval_id, reason, signature, as_json=as_json, config=config)


@app.command("keygen")
def keygen(
    path: Annotated[Path, typer.Argument(help="File for the private key; it must not be there yet.")],
    *,
    as_json: Json = False,
) -> None:
    """Make a key that signs votes; prints its public half, for `approvals.people`."""
    with errors_to_exit(as_json=as_json):
        seed = random_bytes(32)
        public = SigningKey(seed, open_provider("openssl")).verifying_key()
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
                file.write(seed.hex() + "\n")
        except OSError as error:
            msg = f"cannot make the key `{path}`: {error.strerror or error}"
            raise InputError(msg, code="input.unwritable") from error
        if as_json:
            print_json({"public_key": public.hex, "key_id": public.key_id})
        else:
            err.print(f"made {escape(str(path))}; keep it to yourself")
            out.print(f'public_key = "{public.hex}"')


@app.command("sign")
def sign(
    file: Annotated[Path, typer.Argument(help="What `symbi approvals show ID --json` printed.")],
    *,
    key: Annotated[Path, typer.Option(help="Your private key, as `symbi approvals keygen` made it.")],
    refuse: Annotated[bool, typer.Option("--deny", help="Sign a no.")] = False,
    reason: Reason = "",
) -> None:
    """Sign a vote on what a file shows, away from the machine that asks; prints the vote, for `--signature`."""
    with errors_to_exit():
        row = _read_json(file)
        digest = _checked_digest(row)
        _check_reason(reason)
        _print(row, to=err)
        signing = SigningKey(_read_key(key), open_provider("openssl"))
        said = statement(str(row["id"]), digest, agrees=not refuse, reason=reason)
        vote = {
            "id": row["id"], "digest": digest, "vote": "deny" if refuse else "approve", "reason": reason,
            "key_id": signing.key_id, "signature": signing.sign(VOTE_DOMAIN, said).hex(),
        }  # fmt: skip
        print_json(vote)


def _vote(
    vote: str, approval_id: str, reason: str, signature: Path | None, *, as_json: bool, config: Path | None
) -> None:
    with errors_to_exit(as_json=as_json):
        settings = load_settings(config)
        start_logging(settings)
        _check_reason(reason)
        arguments: dict[str, JsonValue] = {"id": approval_id, "reason": reason}
        if signature is None:
            shown: Any = _ask(settings, "approvals.show", {"id": approval_id})
            arguments["digest"] = _checked_digest(shown)
            if not as_json:
                _print(shown, to=err)
        else:
            arguments |= _signed(signature, approval_id, vote, reason)
        row: Any = _ask(settings, f"approvals.{vote}", arguments)
        if as_json:
            print_json(row)
            return
        out.print(f"{escape(row['id'])} is [bold]{row['state']}[/]")
        for missing in row["missing"]:
            out.print(f"  still needs {escape(printable(missing))}")


def _signed(path: Path, approval_id: str, vote: str, reason: str) -> dict[str, JsonValue]:
    signed = _read_json(path)
    if signed.get("id") != approval_id or signed.get("vote") != vote:
        msg = f"`{path}` is a vote to {signed.get('vote')} `{signed.get('id')}`, and not this one"
        raise InputError(msg, code="approval.vote")
    if reason and reason != signed.get("reason"):
        msg = "a signed vote has its own reason, which cannot be given anew"
        raise InputError(msg, code="approval.vote", hint="leave out `--reason`")
    try:
        return {name: str(signed[name]) for name in ("digest", "reason", "key_id", "signature")}
    except KeyError as error:
        msg = f"`{path}` has no {error}"
        raise InputError(msg, code="approval.vote", hint="`symbi approvals sign` makes it") from None


def _ask(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> JsonValue:
    """Ask the owner of the data folder; without one, read the store, or become the owner while it takes.

    Raises:
        SymbiError: What the owner said, or what the store has to say.
    """
    connection = connect_owner(settings.runtime.data_dir)
    if connection is not None:
        return ask_owner(connection, operation, arguments)
    if operation in {"approvals.list", "approvals.show"}:
        return _read(settings, operation, arguments)
    return run_to_end(partial(own, settings, operation, arguments), settings)


def _read(settings: Settings, operation: str, arguments: Mapping[str, JsonValue]) -> JsonValue:
    people = registered_people(settings, open_provider(settings.security.crypto_provider.value))
    with open_reader(settings) as reader:
        if operation == "approvals.list":
            states = tuple(ApprovalState) if arguments["all"] else tuple(OPEN)
            return [row_json(record, people) for record in reader.approvals(states, MAX_LISTED)]
        record = reader.get_approval(str(arguments["id"]))
    if record is None:
        msg = f"there is no approval `{str(arguments['id'])[:64]}`"
        raise InputError(msg, code="approval.unknown", hint="`symbi approvals list` shows what waits")
    return record_json(record, people)


def _print(row: Mapping[str, Any], *, to: Any = out) -> None:
    def line(name: str, value: object) -> None:
        to.print(f"[bold]{name:<10}[/] {escape(printable(str(value)))}")

    line("approval", f"{row['id']} ({_state(row)})")
    line("agent", f"{row['agent']} of {row['owner']}, run {row['run'] or 'none'}, effect {row['position']}")
    line("action", f"{row['action']} on {row['resource']}")
    for name, value in row["arguments"].items():
        label = row["labels"].get(name)
        told = "" if label is None else f"   <- {_told(label)}"
        line(f"  {name}", f"{json.dumps(value, ensure_ascii=False)}{told}")
    line("data", _told(row["label"]))
    line("risk", ", ".join(f"{name} {value}" for name, value in row["risk"].items()))
    for policy in row["policies"]:
        line("policy", f"{policy['id']} ({policy['file']}:{policy['line']})")
    for ask in row["asks"]:
        able = ", ".join(ask["able"])
        line("asks", f"{ask['text']}: {ask['people']} of {able}")
    for vote in row["votes"]:
        line("vote", f"{vote['person']}: {vote['vote']} at {vote['at'][:19]} {vote['reason']}")
    line("digest", row["digest"])


def _state(row: Mapping[str, Any]) -> str:
    """The state, and until when it lasts if it is one that ends by itself."""
    if row["state"] not in {state.value for state in OPEN}:
        return str(row["state"])
    end = f"{row['expires_at'][:19]}Z"
    over = SystemClock().now_ns() >= parse_rfc3339(row["expires_at"])
    return f"expired at {end}" if over else f"{row['state']} until {end}"


def _told(label: Mapping[str, Any]) -> str:
    sources = ", ".join(label["sources"])
    kinds = "".join(f":{category}" for category in label["categories"])
    return f"{label['integrity']}, {label['confidentiality']}{kinds}{f', from {sources}' if sources else ''}"


def _checked_digest(row: Mapping[str, Any]) -> str:
    """The digest of what is shown, once it is seen to be that.

    Raises:
        InputError: It is the digest of something else, or there is none.
    """
    try:
        facts, digest = row["facts"], str(row["digest"])
        arguments = canonical_json(row["arguments"])
        erased = row["state"] not in {state.value for state in OPEN}
        fits = (
            hashlib.sha256(canonical_json(facts)).hexdigest() == digest
            and facts["effect_id"] == row["id"]
            and (erased or hashlib.sha256(arguments).hexdigest() == facts["shown_digest"])
        )
    except (KeyError, TypeError, SymbiError):
        fits, digest = False, ""
    if not fits:
        msg = "what is shown does not have the digest that is to be voted on"
        raise InputError(msg, code="approval.digest", hint="it was altered on its way: ask again, and look into it")
    return digest


def _check_reason(reason: str) -> None:
    if len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        msg = f"a reason is one line of at most {MAX_REASON_CHARS} printable characters"
        raise InputError(msg, code="approval.reason")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        msg = f"`{path}` is not JSON: {error}"
        raise InputError(msg, code="input.value") from None
    if not isinstance(value, dict):
        msg = f"`{path}` holds no JSON object"
        raise InputError(msg, code="input.value")
    return value


def _read_key(path: Path) -> bytes:
    text = read_text(path).strip()
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        msg = f"the key `{path}` can be read by others"
        raise InputError(msg, code="input.key", hint=f"chmod 600 {path}")
    try:
        seed = bytes.fromhex(text)
    except ValueError:
        seed = b""
    if len(text) != KEY_DIGITS or not seed:
        msg = f"`{path}` holds no key of `symbi approvals keygen`"
        raise InputError(msg, code="input.key")
    return seed
