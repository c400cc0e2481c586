"""Every stream opened with a ticket, right or not; every other endpoint, which none opens."""

from collections.abc import Callable, Iterator
from typing import Final

from server.rules.tickets import Ticket, seal_ticket
from tests.client import Client
from tests.proof.access.asking import ask
from tests.proof.access.callers import Due
from tests.proof.access.stages import Stage, staged
from tests.proof.access.table import ROWS, Row
from tests.proof.access.wording import KINDS
from tests.world import World

INVALID: Final = Due(401, "invalid_credentials")


def breaches(world: World) -> Iterator[str]:
    """What does not come as it is due."""
    here, there = world.workspace(), world.workspace()
    anywhere = dict.fromkeys(("nonce", "token", *KINDS), "any")
    for row in ROWS:
        if not row.roles:
            continue
        if "stream" not in row.marks:
            ticket = _ticket(here.agent())
            came, _ = ask(world.http, row, anywhere, {}, {"ticket": ticket})
            if came != Due(401, "authentication_required"):
                yield f"{row.endpoint}: {came} came with a ticket and no key"
            continue
        stage = staged(row.stage, here)
        foreign = {"workspace": here.id, "ticket": _ticket(there.agent())}
        asked: list[tuple[str, dict[str, str], Due]] = [
            ("of there", {"ticket": foreign["ticket"]},
             Due(404, "task_not_found") if row.about else Due(200)),
            ("of there, naming here", foreign, Due(404, "workspace_not_found")),
            ("of nobody's session", {"ticket": _ticket(here.operator)},
             Due(401, "identity_required") if row.agents else Due(200)),
            ("of a viewer", {"ticket": _ticket(here.client("viewer"))},
             Due(403, "forbidden") if row.agents else Due(200)),
            *((name, {"ticket": make(stage)}, due) for name, make, due in TICKETS),
        ]  # fmt: skip
        for name, query, wanted in asked:
            came, _ = ask(world.http, row, stage.ids, {}, query)
            if came != wanted:
                yield f"{row.endpoint}, ticket {name}: {wanted} is due, {came} came"


def _ticket(by: Client) -> str:
    ticket: str = by.post("/api/auth/stream-ticket").ticket
    return ticket


def _used(stage: Stage) -> str:
    """A ticket opens as often as is wanted for its minute."""
    ticket = _ticket(stage.agent)
    world, log = stage.workspace.world, Row("GET /api/observe/stream", "VAOM", marks="stream")
    ask(world.http, log, stage.ids, {}, {"ticket": ticket})
    return ticket


def _spoiled(stage: Stage) -> str:
    ticket = _ticket(stage.agent)
    return ticket[:9] + ("A" if ticket[9] != "A" else "B") + ticket[10:]


def _sealed(stage: Stage, secret: bytes, until: float) -> str:
    """What a server with this secret would have made."""
    key_id = stage.agent.get("/api/whoami").whoami.key_id
    own = stage.workspace
    ticket = Ticket(key_id, own.id, own.name, "worker", stage.agent.session, "http", until)
    return seal_ticket(secret, ticket)


def _of_a_revoked_key(stage: Stage) -> str:
    own = stage.workspace
    wish = {"name": stage.ids["nonce"], "role": "operator", "workspace": own.id}
    key = own.world.admin.post("/api/keys", **wish).key
    headers = {"X_Agent_Name": "worker", "X_Session_ID": stage.ids["nonce"]}
    ticket = _ticket(Client(own.world.http, key.secret, **headers))
    own.world.admin.delete(f"/api/keys/{key.id}")
    return ticket


FAR: Final = 4e9
TICKETS: Final[tuple[tuple[str, Callable[[Stage], str], Due], ...]] = (
    ("of its own", lambda stage: _ticket(stage.agent), Due(200)),
    ("used before", _used, Due(200)),
    ("expired", lambda s: _sealed(s, s.workspace.world.server.secret, 1.0), INVALID),
    ("of no server", lambda s: _sealed(s, b"another server", FAR), INVALID),
    ("spoiled", _spoiled, INVALID),
    ("that is a key", lambda stage: stage.agent.key, INVALID),
    ("that is a claim token", lambda stage: f"wlt_1_{'A' * 43}", INVALID),
    ("of a revoked key", _of_a_revoked_key, INVALID),
)
