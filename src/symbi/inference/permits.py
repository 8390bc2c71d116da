"""Whether a permit covers that a model reads some texts."""

from symbi.errors import PermitRefused
from symbi.guard.action import ReadData, WriteData
from symbi.guard.permit import Authority, Permit
from symbi.inference.port import EmbedderId


def check_embed(authority: Authority, permit: Permit[ReadData] | Permit[WriteData], model: EmbedderId) -> None:
    """Refuse to have texts read under any other permit than that of a live read or write, which knows of a remote model.

    Raises:
        PermitRefused: It is not live, or its decision was not about this remote model.
    """
    match permit.action:
        case WriteData():
            action: ReadData | WriteData = authority.check(permit, WriteData)
        case _:
            action = authority.check(permit, ReadData)
    if model.remote and not (action.remote and action.embedder == model.name):
        msg = f"permit does not say that `{model.name}`, which is not of this machine, reads the texts"
        raise PermitRefused(msg, code="permit.foreign")
