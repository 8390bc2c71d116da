"""A notice to a client that has gone is lost, and harms nobody."""

import anyio
import mcp_types as types
import pytest
from mcp.shared.exceptions import MCPError

from symbi.api.mcp.serving import handed

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "error", [anyio.ClosedResourceError(), anyio.BrokenResourceError(), MCPError(types.INTERNAL_ERROR, "no stream")]
)
async def test_a_client_that_has_gone_misses_it(error):
    async def notice():
        raise error

    await handed(notice)


async def test_a_defect_is_not_passed_over():
    async def notice():
        raise KeyError

    with pytest.raises(KeyError):
        await handed(notice)
