"""Whether a permit covers what an index is asked: it is live, and for the data that the namespaces belong to."""

from collections.abc import Iterable

from symbi.errors import PermitRefused
from symbi.guard.action import ExportData, ReadData, WriteData
from symbi.guard.permit import Authority, Permit
from symbi.knowledge.vectors import Namespace


def check_write(authority: Authority, permit: Permit[WriteData], namespaces: Iterable[Namespace]) -> None:
    """Refuse to write to these namespaces under any other permit.

    Raises:
        PermitRefused: It is not live, or it is for other data.
    """
    _check_data(authority.check(permit, WriteData), namespaces)


def check_read(
    authority: Authority,
    permit: Permit[ReadData] | Permit[WriteData] | Permit[ExportData],
    namespaces: Iterable[Namespace],
) -> None:
    """Refuse to read these namespaces under any other permit.

    Raises:
        PermitRefused: It is not live, or it is for other data.
    """
    match permit.action:
        case WriteData():
            action: ReadData | WriteData | ExportData = authority.check(permit, WriteData)
        case ExportData():
            action = authority.check(permit, ExportData)
        case _:
            action = authority.check(permit, ReadData)
    _check_data(action, namespaces)


def _check_data(action: ReadData | WriteData | ExportData, namespaces: Iterable[Namespace]) -> None:
    data = action.data
    for one in namespaces:
        if (one.type, one.name) != (data.type, data.name):
            msg = f"permit is for `{data.type}` `{data.name}`, not for `{one.type}` `{one.name}`"
            raise PermitRefused(msg, code="permit.foreign")
