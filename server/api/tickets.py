"""Stream tickets: a minute to open a stream, for browsers, which cannot send a key with it."""

import msgspec

from server import limits
from server.api.context import Context
from server.contract.base import Encoded
from server.contract.streams import StreamTicketRequest, StreamTicketResponse
from server.rules.tickets import Ticket, seal_ticket
from server.store.tickets import expire_ticket


async def make_ticket(ctx: Context, body: StreamTicketRequest) -> Encoded[StreamTicketResponse]:
    """Makes a ticket that opens streams as this caller, for a minute."""
    until, expires_at = await expire_ticket(ctx.services.db, limits.STREAM_TICKET_SECONDS)
    caller = ctx.caller
    ticket = Ticket(
        caller.key_id, caller.workspace_id, caller.workspace_name, caller.agent_name,
        caller.session_id, caller.origin_kind, until,
    )  # fmt: skip
    text = seal_ticket(ctx.services.secrets[0], ticket)
    told = StreamTicketResponse(ticket=text, expires_at=expires_at)
    return Encoded(msgspec.json.encode(told))
