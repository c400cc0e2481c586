"""What a task demands of its worker, its reviewer and its sandbox."""

from typing import Annotated, Literal

from msgspec import Meta, field

from server import limits
from server.contract.base import (
    BYTES,
    Answer,
    FieldError,
    Request,
    Selector,
    Selectors,
    Time,
    TimeInput,
)

CoordinatorMode = Literal["inherit", "guided"]
WorkerMode = Literal["inherit", "select"]
SandboxMode = Literal["inherit", "none", "ref"]
RuntimeMode = Literal["default", "evidence"]
Guidance = Annotated[str, Meta(max_length=limits.GUIDANCE_LIMIT_BYTES, extra=BYTES)]


class Coordinator(Answer):
    """Who coordinates the work."""

    mode: CoordinatorMode
    agent_name: str | None
    provider: str | None
    model: str | None
    guidance: str | None


class Worker(Answer):
    """Who may do the work."""

    mode: WorkerMode
    agent_name: str | None
    provider: str | None
    model: str | None
    allowed_agent_names: list[str]
    preferred_agent_names: list[str]
    required_capabilities: list[str]
    preferred_capabilities: list[str]


class Participants(Answer):
    """Who may take part in the work."""

    allowed_agent_names: list[str]
    allowed_channel_ids: list[str]
    allowed_peer_ids: list[str]
    preferred_agent_names: list[str]
    preferred_channel_ids: list[str]
    preferred_peer_ids: list[str]
    required_capabilities: list[str]
    preferred_capabilities: list[str]


class Reviewer(Participants):
    """Who may review the work."""

    agent_name: str | None
    provider: str | None
    model: str | None


class Sandbox(Answer):
    """Where the work may run."""

    mode: SandboxMode
    sandbox_ref: str | None


class Runtime(Answer):
    """How the work is recorded."""

    mode: RuntimeMode


class ExecutionProfile(Answer):
    """All demands of one task."""

    task_id: str
    coordinator: Coordinator
    worker: Worker
    review: Reviewer
    participants: Participants
    sandbox: Sandbox
    runtime: Runtime
    created_at: Time | None
    updated_at: Time | None


class Demands(Request):
    """Lists of names: each name once, in order."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            listed = getattr(self, name)
            if isinstance(listed, list):
                setattr(self, name, sorted(set(listed)))


class CoordinatorInput(Request):
    """Who is to coordinate the work."""

    mode: CoordinatorMode = "inherit"
    agent_name: Selector | None = None
    provider: Selector | None = None
    model: Selector | None = None
    guidance: Guidance | None = None


class WorkerInput(Demands):
    """Who is to do the work."""

    mode: WorkerMode = "inherit"
    agent_name: Selector | None = None
    provider: Selector | None = None
    model: Selector | None = None
    allowed_agent_names: Selectors = field(default_factory=list)
    preferred_agent_names: Selectors = field(default_factory=list)
    required_capabilities: Selectors = field(default_factory=list)
    preferred_capabilities: Selectors = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        allowed = self.allowed_agent_names
        if self.agent_name is not None and allowed and self.agent_name not in allowed:
            raise FieldError("agent_name", "allowed", "must be one of allowed_agent_names")


class ParticipantsInput(Demands):
    """Who is to take part in the work."""

    allowed_agent_names: Selectors = field(default_factory=list)
    allowed_channel_ids: Selectors = field(default_factory=list)
    allowed_peer_ids: Selectors = field(default_factory=list)
    preferred_agent_names: Selectors = field(default_factory=list)
    preferred_channel_ids: Selectors = field(default_factory=list)
    preferred_peer_ids: Selectors = field(default_factory=list)
    required_capabilities: Selectors = field(default_factory=list)
    preferred_capabilities: Selectors = field(default_factory=list)


class ReviewerInput(ParticipantsInput):
    """Who is to review the work."""

    agent_name: Selector | None = None
    provider: Selector | None = None
    model: Selector | None = None


class SandboxInput(Request):
    """Where the work is to run."""

    mode: SandboxMode = "inherit"
    sandbox_ref: Selector | None = None

    def __post_init__(self) -> None:
        if (self.mode == "ref") != (self.sandbox_ref is not None):
            raise FieldError("sandbox_ref", "required", "goes with mode ref, and only so")


class RuntimeInput(Request):
    """How the work is to be recorded."""

    mode: RuntimeMode = "default"


class ExecutionProfileInput(Request):
    """All demands of one task; an absent block has its defaults."""

    task_id: str | None = None
    coordinator: CoordinatorInput = field(default_factory=CoordinatorInput)
    worker: WorkerInput = field(default_factory=WorkerInput)
    review: ReviewerInput = field(default_factory=ReviewerInput)
    participants: ParticipantsInput = field(default_factory=ParticipantsInput)
    sandbox: SandboxInput = field(default_factory=SandboxInput)
    runtime: RuntimeInput = field(default_factory=RuntimeInput)
    created_at: TimeInput | None = None
    updated_at: TimeInput | None = None


class ProfilePutRequest(ExecutionProfileInput):
    """All demands of one task, instead of those before."""


class ProfileResponse(Answer):
    """All demands of one task."""

    profile: ExecutionProfile
