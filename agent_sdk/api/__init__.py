"""The server's routes as typed methods, a noun a file."""

from agent_sdk.api.bridges import Bridges
from agent_sdk.api.dashboard import Dashboards
from agent_sdk.api.events import Events
from agent_sdk.api.inbox import Inboxes
from agent_sdk.api.keys import Keys
from agent_sdk.api.leases import Leases
from agent_sdk.api.profiles import Profiles
from agent_sdk.api.reviews import Reviews
from agent_sdk.api.runs import Runs
from agent_sdk.api.scheduler import Schedulers
from agent_sdk.api.sessions import Sessions
from agent_sdk.api.subscriptions import Subscriptions
from agent_sdk.api.tasks import Tasks
from agent_sdk.api.workspaces import Workspaces
from agent_sdk.transport import Transport

__all__ = [
    "Api",
    "Bridges",
    "Dashboards",
    "Events",
    "Inboxes",
    "Keys",
    "Leases",
    "Profiles",
    "Reviews",
    "Runs",
    "Schedulers",
    "Sessions",
    "Subscriptions",
    "Tasks",
    "Workspaces",
]


class Api:
    """Every noun of the server, over one transport."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.tasks = Tasks(transport)
        self.runs = Runs(transport)
        self.profiles = Profiles(transport)
        self.sessions = Sessions(transport)
        self.leases = Leases(transport)
        self.reviews = Reviews(transport)
        self.scheduler = Schedulers(transport)
        self.inbox = Inboxes(transport)
        self.dashboard = Dashboards(transport)
        self.events = Events(transport)
        self.bridges = Bridges(transport)
        self.subscriptions = Subscriptions(transport)
        self.keys = Keys(transport)
        self.workspaces = Workspaces(transport)
