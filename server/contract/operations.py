"""What the server says about itself and about its caller."""

from server.contract.base import Actor, Answer, Origin, Time
from server.contract.keys import Role


class HealthResponse(Answer):
    """The process serves."""

    status: str


class VersionResponse(Answer):
    """What runs here."""

    name: str
    version: str
    commit: str | None
    api_version: int
    schema_version: int


class DatabaseCheck(Answer):
    """Whether the database answers."""

    ok: bool
    latency_ms: float | None


class SchemaCheck(Answer):
    """Whether the schema fits this server."""

    ok: bool
    version: int | None
    compatible_from: int | None
    expected: int


class AgeCheck(Answer):
    """Whether something happened lately."""

    ok: bool
    age_seconds: float | None


class Checks(Answer):
    """What readiness is made of."""

    database: DatabaseCheck
    schema: SchemaCheck
    notify: AgeCheck
    sweep: AgeCheck


class ReadyResponse(Answer):
    """Whether this process can do its work."""

    ready: bool
    degraded: bool
    checks: Checks


class WorkspaceName(Answer):
    """A workspace in two words."""

    id: str
    name: str


class Whoami(Answer):
    """Who the server takes the caller for."""

    role: Role
    key_id: str
    key_name: str
    agent_name: str | None
    session_id: str | None
    workspace: WorkspaceName
    actor: Actor
    origin: Origin
    all_workspaces: bool
    expires_at: Time | None
    server_version: str
    server_time: Time


class WhoamiResponse(Answer):
    """Who the server takes the caller for."""

    whoami: Whoami
