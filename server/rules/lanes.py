"""Which lanes a claimer may take runs from."""

from typing import NamedTuple

import msgspec


class Demands(msgspec.Struct, frozen=True):
    """What the runs of a lane ask of their claimer; what is absent is not asked."""

    owner_kind: str | None = None
    owner_ref: str | None = None
    channel: str | None = None
    agent: str | None = None
    worker_agents: list[str] | None = None
    agents: list[str] | None = None
    channels: list[str] | None = None
    peers: list[str] | None = None
    capabilities: list[str] | None = None


class Claimer(NamedTuple):
    """What a claim says of its maker; channel None takes runs of any."""

    agent_name: str
    session_id: str
    channel: str | None
    peer_id: str | None
    capabilities: frozenset[str]


def read_demands(text: str) -> Demands:
    """The demands of a stored lane."""
    return msgspec.json.decode(text, type=Demands)


def eligible(demands: Demands, claimer: Claimer) -> bool:
    """Whether every demand of the lane is met."""
    return (
        _owned(demands, claimer)
        and (claimer.channel is None or claimer.channel == demands.channel)
        and demands.agent in (None, claimer.agent_name)
        and _allowed(demands.worker_agents, claimer.agent_name)
        and _allowed(demands.agents, claimer.agent_name)
        and _allowed(demands.channels, demands.channel)
        and _allowed(demands.peers, claimer.peer_id)
        and claimer.capabilities.issuperset(demands.capabilities or ())
    )


def _owned(demands: Demands, claimer: Claimer) -> bool:
    """A task of a person, an extension and the like is never handed to agents."""
    match demands.owner_kind:
        case None:
            return True
        case "pool":
            return demands.owner_ref == claimer.agent_name
        case "agent_session":
            return demands.owner_ref == claimer.session_id
        case _:
            return False


def _allowed(listed: list[str] | None, name: str | None) -> bool:
    return listed is None or name in listed
