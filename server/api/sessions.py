"""Sessions: the running processes of agents."""

from server.api.context import Context
from server.api.paging import AFTER_ALL_IDS, pages
from server.contract.base import Encoded
from server.contract.sessions import SessionListQuery, SessionListResponse
from server.store import sessions


async def list_sessions(ctx: Context, query: SessionListQuery) -> Encoded[SessionListResponse]:
    """Lists sessions, by id from the highest down."""
    [after_id] = ctx.after(query) or [AFTER_ALL_IDS]
    rows = await sessions.list_sessions(
        ctx.services.db,
        workspace_id=ctx.workspace_id,
        after_id=after_id,
        state=query.state,
        agent_name=query.agent_name,
        session_ttl=ctx.services.config.session_ttl_seconds,
        limit=query.limit,
    )
    return pages(ctx, query, "sessions", rows)
