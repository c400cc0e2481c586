"""The dashboard."""

import msgspec

from server.api.context import Context
from server.contract.base import Encoded
from server.contract.dashboard import DashboardQuery, DashboardResponse
from server.rules.dashboard import Facts, dashboard
from server.store.dashboard import read_dashboard


async def get_dashboard(ctx: Context, query: DashboardQuery) -> Encoded[DashboardResponse]:
    """Shows how many tasks and runs there are, how fast they move, and what ails them."""
    found = await read_dashboard(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        session_ttl=ctx.services.config.session_ttl_seconds,
        **msgspec.structs.asdict(query),
    )
    facts = msgspec.json.decode(found, type=Facts)
    return Encoded(msgspec.json.encode({"dashboard": dashboard(facts)}))
