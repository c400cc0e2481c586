"""Sessions: the agent processes that are, or were, at work."""

from server.api.context import Context
from server.api.paging import BEHIND_ALL, pages
from server.contract.base import Encoded
from server.contract.sessions import SessionListQuery, SessionListResponse
from server.store import sessions


async def list_sessions(ctx: Context, query: SessionListQuery) -> Encoded[SessionListResponse]:
    """Lists sessions with how many leases each holds."""
    [after] = ctx.after(query) or [BEHIND_ALL]
    rows = await sessions.list_sessions(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        session_ttl=ctx.services.config.session_ttl_seconds,
        state=query.state,
        agent_name=query.agent_name,
        after=after,
        limit=query.reach,
    )
    return pages(ctx, query, "sessions", rows)
