"""Where a witness keeps the heads that it has seen: a file, a Git repository; and how one on another host is asked."""

import fcntl
import os
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2

from symbi.audit.checkpoint import Note
from symbi.audit.witness import (
    MAX_PROOF_LINES,
    MAX_WITNESS_BYTES,
    AddCheckpoint,
    WitnessKey,
    parse_witness_file,
    read_answer,
    witness_entry,
)
from symbi.clock import random_bytes
from symbi.crypto.provider import SEED_BYTES, CryptoProvider
from symbi.crypto.signing import SigningKey
from symbi.errors import ChainBroken, InputError, Unavailable

SUFFIX: Final = ".witness"
GIT_TIMEOUT_S: Final = 60.0  # one command, pushing included
HTTP_TIMEOUT_S: Final = 30.0
MAX_ANSWER_BYTES: Final = 65_536
SIZE_TYPE: Final = "text/x.tlog.size"

_KEY_DIGITS: Final = 2 * SEED_BYTES
_OK, _CONFLICT, _UNPROCESSABLE = 200, 409, 422


class WitnessFile:
    """The heads that a witness has seen, in a file that only grows; held by one witness at a time.

    Args:
        path: The file, or a folder, in which each trail has a file of its own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def path_for(self, origin: str) -> Path:
        """The file for a trail."""
        if not self._path.is_dir():
            return self._path
        return self._path / (re.sub(r"[^A-Za-z0-9._-]", "_", origin) + SUFFIX)

    @contextmanager
    def held(self, origin: str) -> Iterator[Path]:
        """The file for a trail, which nobody else changes meanwhile.

        Raises:
            InputError: Another witness holds it, or it cannot be reached.
        """
        path = self.path_for(origin)
        try:
            descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                msg = f"another witness is at work in `{path.parent}`"
                raise InputError(msg, code="witness.busy", hint="try again when it is done") from error
            yield path
        finally:
            os.close(descriptor)

    def seen(self, path: Path, origin: str, *, new_trail: bool = False) -> Note | None:
        """The last head of a trail in a file; None where it has seen none.

        Raises:
            ChainBroken: The file is damaged, or is of another trail; or its folder knows others and not this one, and
                `new_trail` is not set.
            InputError: It cannot be read.
        """
        notes = parse_witness_file(self._read(path))
        other = next((note.checkpoint for note in notes if note.checkpoint.origin != origin), None)
        if other is not None:
            msg = f"`{path}` knows the trail `{other.origin}` up to event {other.size}, and not `{origin}`"
            hint = (
                "whoever begins a trail anew has thrown the one before away; if that was on purpose, name another file"
            )
            raise ChainBroken(msg, sequence=0, reason="origin", hint=hint)
        if not notes and not new_trail and (strangers := self._others(path)):
            msg = f"`{path.parent}` knows {strangers} other trail{'s'[: strangers > 1]}, and not `{origin}`"
            hint = "if a further trail is to be witnessed there, give `--new-trail`"
            raise ChainBroken(msg, sequence=0, reason="origin", hint=hint)
        return notes[-1] if notes else None

    def _others(self, path: Path) -> int:
        return sum(1 for _ in path.parent.glob(f"*{SUFFIX}")) if self._path.is_dir() else 0

    def keep(self, path: Path, note: Note) -> None:
        """Add a head; it is on the disk when this returns, whole or not at all.

        Raises:
            InputError: It cannot be written.
        """
        data = self._read(path) + witness_entry(note)
        beside = path.with_name(f".{path.name}.{random_bytes(8).hex()}")
        try:
            try:
                descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                beside.rename(path)
            finally:
                beside.unlink(missing_ok=True)
            _flush_folder(path.parent)
        except OSError as error:
            raise _unusable(path, error) from error

    def publish(self, path: Path, name: str) -> None:
        """Do what is to be done once a head is kept: here nothing."""

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_WITNESS_BYTES + 1)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise _unusable(path, error) from error
        if len(data) > MAX_WITNESS_BYTES:
            msg = f"`{path}` has more than {MAX_WITNESS_BYTES} bytes"
            raise InputError(msg, code="witness.file", hint="begin a new file; keep the old one")
        return data


class GitWitness(WitnessFile):
    """The same files in a Git repository: each head is a commit.

    Args:
        folder: The repository's working tree, or a folder in it.
        push: Push after the commit, to where the repository pushes.
    """

    def __init__(self, folder: Path, *, push: bool = False) -> None:
        super().__init__(folder)
        self._folder = folder
        self._push = push
        if not folder.is_dir() or self._outside():
            msg = f"`{folder}` is not in a Git repository"
            raise InputError(msg, code="witness.git", hint=f"git init {folder}")

    def publish(self, path: Path, name: str) -> None:
        """Commit the file if it changed; also what an earlier attempt left uncommitted.

        Raises:
            InputError: Git cannot do it; the head is kept in the file all the same.
        """
        file = path.name
        if self._git("status", "--porcelain", "--", file).strip():
            self._git("add", "--", file)
            who = () if self._has_name() else ("-c", f"user.name={name}", "-c", "user.email=witness@localhost")
            self._git(*who, "commit", "--quiet", "--message", f"{name} saw a head", "--", file)
        if self._push:
            self._git("push", "--quiet")

    def _outside(self) -> bool:
        done = self._run("rev-parse", "--is-inside-work-tree")
        return done.stdout.strip() != "true" and (not done.returncode or "not a git repository" in done.stderr)

    def _has_name(self) -> bool:
        return self._run("config", "user.email").returncode == 0 and self._run("config", "user.name").returncode == 0

    def _git(self, *arguments: str) -> str:
        done = self._run(*arguments)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            msg = f"git {arguments[0]} in `{self._folder}` failed: {said[-1] if said else done.returncode}"
            raise InputError(msg, code="witness.git")
        return done.stdout

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 - no shell; the arguments are ours
                ("git", *arguments),  # noqa: S607 - whichever git the operator has
                cwd=self._folder, check=False, capture_output=True, text=True, errors="replace", timeout=GIT_TIMEOUT_S,
                env=os.environ | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            msg = f"git cannot be run in `{self._folder}`: {error}"
            raise InputError(msg, code="witness.git", hint="install git, or keep the heads in a file") from error


class HttpWitness:
    """A witness on another host that speaks C2SP `tlog-witness`.

    Args:
        url: Where `add-checkpoint` is; `https:`, or `http:` to this machine.
        witness: Its name and key; without them nobody could tell its cosignature from another's.
    """

    def __init__(self, url: str, witness: WitnessKey) -> None:
        self._url = url.rstrip("/") + ("" if url.endswith("/add-checkpoint") else "/add-checkpoint")
        self._witness = witness

    def submit(self, note: Note, old: int, prove: Callable[[int], Sequence[bytes]]) -> tuple[Note, int]:
        """Have a head countersigned.

        Args:
            note: The head.
            old: Size of the head that the witness saw last, as far as is known; 0 for none.
            prove: A consistency proof from a size to the head's.

        Returns:
            The note with the cosignature, and the witness's time in seconds since 1970.

        Raises:
            ChainBroken: The witness has seen a later head, or one that this one does not continue.
            SignatureInvalid: Its answer is no cosignature by its key.
            Unavailable: It cannot be reached, or refuses for another reason.
        """
        status, answer, kind = self._post(AddCheckpoint(old, tuple(prove(old)), note))
        if status == _CONFLICT:
            old = self._size(note, answer, kind)
            status, answer, kind = self._post(AddCheckpoint(old, tuple(prove(old)), note))
        size = note.checkpoint.size
        if status in {_CONFLICT, _UNPROCESSABLE}:
            said = f"witness `{self._witness.name}` has seen a head at event {old}"
            msg = f"{said} that the head at event {size} does not continue: the trail has forked"
            raise ChainBroken(msg, sequence=min(old, size), reason="fork", seen=old, head=size)
        if status != _OK:
            text = answer[:200].decode("utf-8", "replace").strip()
            msg = f"witness `{self._witness.name}` answered {status}: {text}"
            raise Unavailable(msg, code="unavailable.witness")
        return read_answer(note, answer, self._witness)

    def _size(self, note: Note, answer: bytes, kind: str) -> int:
        text = answer.strip()
        if kind != SIZE_TYPE or not text.isdigit() or len(text) > MAX_PROOF_LINES:
            msg = f"witness `{self._witness.name}` has another head of this size, or does not say which it has"
            size = note.checkpoint.size
            raise ChainBroken(msg, sequence=size, reason="fork", seen=size, head=size)
        seen, size = int(text), note.checkpoint.size
        if seen > size:
            msg = f"witness `{self._witness.name}` has seen a head at event {seen}, and this one is at event {size}"
            raise ChainBroken(msg, sequence=size, reason="rollback", seen=seen, head=size)
        return seen

    def _post(self, asked: AddCheckpoint) -> tuple[int, bytes, str]:
        try:
            with (
                httpx2.Client(follow_redirects=False, trust_env=False, timeout=HTTP_TIMEOUT_S) as client,
                client.stream("POST", self._url, content=asked.to_bytes()) as answer,
            ):
                data = b""
                for part in answer.iter_bytes():
                    data += part
                    if len(data) > MAX_ANSWER_BYTES:
                        msg = f"witness `{self._witness.name}` answers more than {MAX_ANSWER_BYTES} bytes"
                        raise Unavailable(msg, code="unavailable.witness")
                return answer.status_code, data, answer.headers.get("content-type", "").partition(";")[0].strip()
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            msg = f"witness `{self._witness.name}` cannot be reached: {type(error).__name__}"
            raise Unavailable(msg, code="unavailable.witness") from error


def witness_key(path: Path, provider: CryptoProvider) -> SigningKey:
    """A witness's own key: 64 hexadecimal digits in a file of mode 0600, made at the first use.

    Raises:
        InputError: It is open to others, malformed, or cannot be made.
    """
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            pass  # made before
        else:
            with os.fdopen(descriptor, "w") as file:
                os.fchmod(descriptor, 0o600)
                file.write(random_bytes(SEED_BYTES).hex() + "\n")
                file.flush()
                os.fsync(descriptor)
            _flush_folder(path.parent)
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(_KEY_DIGITS + 2).decode("ascii", "replace").strip()
    except OSError as error:
        msg = f"cannot use the key `{path}`: {error.strerror or error}"
        raise InputError(msg, code="witness.own_key") from error
    if mode & 0o077:
        msg = f"the key `{path}` can be read by others (mode {mode:04o})"
        raise InputError(msg, code="witness.own_key", hint=f"if nobody has read it: chmod 600 {path}")
    if re.fullmatch(r"[0-9a-f]{64}", text) is None:
        msg = f"`{path}` holds no key of a witness: 64 hexadecimal digits"
        raise InputError(msg, code="witness.own_key")
    return SigningKey(bytes.fromhex(text), provider)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> InputError:
    msg = f"cannot use the witness's file `{path}`: {error.strerror or error}"
    return InputError(msg, code="witness.file", hint="name a file in a folder that is there and can be written")
