"""Who may agree to held actions, and who is told of them, from settings."""

import os
import pwd

from symbi.adapters.notices import CommandNotice
from symbi.config import Settings
from symbi.crypto.provider import CryptoProvider
from symbi.crypto.signing import VerifyingKey
from symbi.errors import ConfigError, Place, StoreUnavailable
from symbi.guard.desk import DeskRules, Notice
from symbi.guard.people import People, Person


def folder_owner(settings: Settings) -> int:
    """Number of the operating-system user who owns the data folder; ours where there is none yet.

    Raises:
        StoreUnavailable: It is there, or may be, and the system does not say whose.
    """
    folder = settings.runtime.data_dir
    try:
        return folder.stat().st_uid
    except FileNotFoundError:
        return os.geteuid()
    except OSError as error:
        msg = f"cannot tell who owns `{folder}`: {error.strerror or error}"
        raise StoreUnavailable(msg) from error


def registered_people(settings: Settings, provider: CryptoProvider) -> People:
    """Who may agree to held actions: those of the configuration, or else whoever owns the data folder.

    Raises:
        ConfigError: A person has neither key nor user, names a user who is not there, or is there twice.
    """
    persons = []
    for one in settings.approvals.people:
        place = settings.origin(f"approvals.people.{one.name}.user").place
        if one.public_key is None and one.user is None:
            msg = f"`approvals.people.{one.name}` has neither `public_key` nor `user`, and so can say nothing"
            raise ConfigError(msg, code="config.people", place=place)
        key = None if one.public_key is None else VerifyingKey.from_hex(one.public_key, provider)
        uid = None if one.user is None else _uid(one.user, place)
        user = "" if uid is None else _user_name(uid)
        persons.append(Person(one.name, uid, user, key, one.groups, one.accounts))
    if not persons:
        uid = folder_owner(settings)
        persons.append(Person(_user_name(uid), uid, _user_name(uid)))
    return People(persons)


def desk_rules(settings: Settings, provider: CryptoProvider) -> DeskRules:
    """What the configuration says of approvals.

    Raises:
        ConfigError: As `registered_people`.
    """
    approvals = settings.approvals
    notices: list[tuple[str, Notice]] = []
    if approvals.notify_command:
        command = CommandNotice(approvals.notify_command, settings.folder, timeout_s=approvals.notify_timeout_s)
        notices.append(("command", command))
    if approvals.notify_webhook is not None:
        from symbi.adapters.webhook import WebhookNotice  # noqa: PLC0415 - an HTTP client, for those who ask for it

        notices.append(("webhook", WebhookNotice(approvals.notify_webhook, timeout_s=approvals.notify_timeout_s)))
    return DeskRules(
        registered_people(settings, provider), approvals.expires_s, tuple(notices), approvals.notify_timeout_s
    )


def _uid(user: str, place: Place | None) -> int:
    try:
        return int(user) if user.isascii() and user.isdigit() else pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        msg = f"there is no operating-system user `{user}`"
        raise ConfigError(msg, code="config.people", place=place) from None


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
