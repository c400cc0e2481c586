"""What callers expect in the answers: the fields that each must have, with their types.

Kept apart from the server's own Structs, so that a field which is dropped there is missed here.
"""

import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]
MaybeTime = Time | None
MaybeText = str | None
Scope = Literal["workspace", "global"]
Priority = Literal["low", "medium", "high", "urgent"]
TaskStatus = Literal[
    "draft", "blocked", "ready", "in_progress", "pending", "completed", "failed", "canceled"
]
RunStatus = Literal[
    "queued", "claimed", "starting", "running", "completed", "failed", "canceled",
    "needs_attention",
]  # fmt: skip
ApprovalState = Literal["not_required", "pending", "approved", "rejected"]
Health = Literal["ok", "warn"]


def shape(name: str, groups: Mapping[Any, str] | None = None, /, **fields: Any) -> Any:
    """An object with these fields at least; `groups` has the names of many of one type."""
    named = {one: kind for kind, names in (groups or {}).items() for one in names.split()}
    return msgspec.defstruct(name, list({**named, **fields}.items()), kw_only=True)


def more(base: Any, name: str, groups: Mapping[Any, str] | None = None, /, **fields: Any) -> Any:
    """The fields of another one, and these."""
    inherited = typing.get_type_hints(base, include_extras=True)
    return shape(name, groups, **{**inherited, **fields})


def many(kind: Any) -> Any:
    """A list."""
    return list[kind]


def some(kind: Any) -> Any:
    """A list that is not empty."""
    return Annotated[list[kind], Meta(min_length=1)]


def object_of(kind: Any) -> Any:
    """The object in a list or beside None; None where there is none."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return kind
    return next((found for part in typing.get_args(kind) if (found := object_of(part))), None)


Ref = shape("Ref", {str: "kind ref"})
Channel = shape(
    "CoordinationChannel",
    {str: "id channel display_name workspace_id task_id run_id", MaybeText: "workflow_id"},
    purpose=Literal["task_run_coordination"], last_activity_at=Time,
    allowed_message_kinds=some(
        Literal["status", "request", "reply", "blocker", "handoff", "result", "review_request"]
    ),
)  # fmt: skip
TaskReference = shape(
    "TaskReference",
    {str: "id title", MaybeText: "identifier workspace_id paused_by_task_id"},
    status=TaskStatus, priority=Priority, scope=Scope, owner=Ref | None, latest_event_seq=int,
    paused=bool, effective_paused=bool,
)  # fmt: skip
RunCommon = shape(
    "RunCommon",
    {
        str: "id task_id coordination_channel_id", Time: "queued_at",
        MaybeText: "claim_token_hash error failure_kind previous_run_id session_id",
        MaybeTime: "claimed_at ended_at heartbeat_at lease_until started_at",
    },
    status=RunStatus, attempt=int, claimed_by=Ref | None, coordination_channel=Channel | None,
)  # fmt: skip
RunSummary = more(RunCommon, "RunSummary", max_attempts=int)
Run = more(
    RunCommon, "Run", {MaybeText: "idempotency_key network_channel", Any: "metadata result"},
    origin=Ref,
)  # fmt: skip
Lease = shape(
    "Lease",
    {
        str: "task_id run_id coordination_channel_id", MaybeTime: "heartbeat_at lease_until",
        MaybeText: "claim_token_hash session_id",
    },
    status=RunStatus, claimed_by=Ref | None, coordination_channel=Channel,
)  # fmt: skip
Claim = shape("Claim", coordination_channel=Channel, lease=Lease, run=Run, task=TaskReference)
DependencyReference = shape(
    "DependencyReference", {str: "task_id depends_on_task_id"}, created_at=Time,
    kind=Literal["blocks"], depends_on=TaskReference,
)  # fmt: skip
Dependency = shape(
    "Dependency", {str: "task_id depends_on_task_id"}, created_at=Time, kind=Literal["blocks"]
)
TaskCommon = more(
    TaskReference, "TaskCommon",
    {
        MaybeText: "parent_task_id network_channel current_run_id paused_by paused_reason",
        Time: "created_at updated_at", MaybeTime: "closed_at paused_at",
        bool: "auto_enqueue_on_ready draft",
    },
    approval_policy=Literal["none", "manual"], approval_state=ApprovalState,
    created_by=Ref, origin=Ref, max_attempts=int,
)  # fmt: skip
Task = more(TaskCommon, "Task", description=MaybeText, metadata=Any)
TaskSummary = more(
    TaskCommon, "TaskSummary", {int: "child_count dependency_count"}, last_activity_at=Time,
    active_run=RunSummary | None, dependencies=many(DependencyReference),
)  # fmt: skip
Event = shape(
    "Event", {str: "id event_type", MaybeText: "task_id run_id"}, actor=Ref, origin=Ref,
    payload=dict, timestamp=Time,
)  # fmt: skip
TimelineItem = shape(
    "TimelineItem", {str: "event_id event_type"}, sequence=int, actor=Ref, origin=Ref,
    payload=dict, timestamp=Time, task=TaskReference, run=RunSummary | None,
)  # fmt: skip
TaskDetail = shape(
    "TaskDetail", summary=TaskSummary, task=Task, children=many(TaskSummary),
    dependencies=many(Dependency), dependency_references=many(DependencyReference),
    runs=many(Run), events=some(Event),
)  # fmt: skip
TreeNode = shape(
    "TreeNode", {int: "depth child_count"}, task=TaskReference, parent_task_id=MaybeText,
    active_run=RunSummary | None, last_activity_at=Time,
)  # fmt: skip
Session = shape(
    "Session", {str: "session_id workspace_id agent_name name", Time: "created_at updated_at"},
    channel=MaybeText, state=Literal["active", "stopped"],
)  # fmt: skip
RunTotals = shape(
    "RunTotals",
    {int: "input_tokens output_tokens total_tokens tool_call_count turn_count"},
    total_cost=float, cost_currency=MaybeText, last_activity_at=Time, last_event_type=MaybeText,
)  # fmt: skip
RunDetail = shape(
    "RunDetail", run=Run, task=TaskReference, session=Session | None, summary=RunTotals
)
Review = shape(
    "Review",
    {
        str: "review_id task_id run_id", int: "attempt review_round",
        MaybeText: "parent_review_id reason delivery_id next_round_guidance review_text"
        " reviewer_agent_name reviewer_channel_id reviewer_peer_id reviewer_session_id",
        Time: "created_at requested_at updated_at",
        MaybeTime: "deadline_at reviewed_at routed_at started_at",
    },
    policy=Literal["none", "on_success", "on_failure", "always"], confidence=float | None,
    status=Literal["requested", "routed", "in_review", "recorded", "circuit_opened", "canceled"],
    outcome=Literal["approved", "rejected", "blocked", "error", "timeout", "invalid_output"] | None,
    missing_work=list[str], reviewed_by=Ref | None,
)  # fmt: skip
_AGENT = "model provider"
_ALLOWED = "allowed_agent_names allowed_channel_ids allowed_peer_ids required_capabilities"
_PREFERRED = "preferred_agent_names preferred_channel_ids preferred_peer_ids preferred_capabilities"
Profile = shape(
    "Profile", task_id=str, created_at=MaybeTime, updated_at=MaybeTime,
    coordinator=shape(
        "Coordinator", {MaybeText: f"agent_name guidance {_AGENT}"},
        mode=Literal["inherit", "guided"],
    ),
    worker=shape(
        "WorkerBlock",
        {
            MaybeText: f"agent_name {_AGENT}",
            list[str]: "allowed_agent_names preferred_agent_names required_capabilities"
            " preferred_capabilities",
        },
        mode=Literal["inherit", "select"],
    ),
    review=shape(
        "ReviewBlock",
        {MaybeText: f"agent_name {_AGENT}", list[str]: f"{_ALLOWED} {_PREFERRED}"},
    ),
    participants=shape("Participants", {list[str]: f"{_ALLOWED} {_PREFERRED}"}),
    sandbox=shape("Sandbox", mode=Literal["inherit", "none", "ref"], sandbox_ref=MaybeText),
    runtime=shape("Runtime", mode=Literal["default", "evidence"]),
)  # fmt: skip
Diagnostic = shape(
    "Diagnostic", {str: "id code category title message doc_url"}, suggested_command=MaybeText,
    severity=Literal["ok", "info", "warn", "error", "critical"], evidence=dict,
    data_freshness=Literal["live", "offline", "stale"],
)  # fmt: skip
InspectedRun = shape(
    "InspectedRun",
    {
        str: "run_id task_id", int: "attempt retries", Time: "queued_at",
        MaybeText: "bound_session_id claim_token_hash_truncated failure_kind last_error_summary"
        " previous_run_id",
        MaybeTime: "ended_at heartbeat_at lease_until started_at",
    },
    status=RunStatus, heartbeat_age_seconds=int | None,
)  # fmt: skip
Inspection = shape(
    "Inspection", {str: "target next_action"}, as_of=Time, task=TaskSummary,
    current_run=InspectedRun, recent_runs=some(InspectedRun), diagnostics=many(Diagnostic),
    bound_session=shape(
        "BoundSession",
        {
            str: "session_id state workspace_id", MaybeTime: "started_at last_activity_at",
            MaybeText: "agent_name provider_name stop_reason failure_kind",
        },
    ) | None,
    recent_events=some(
        shape(
            "InspectedEvent",
            {str: "id type summary", MaybeText: "task_id run_id session_id outcome"},
            timestamp=Time,
        )
    ),
    scheduler=shape(
        "InspectedScheduler", {MaybeText: "paused_by reason", MaybeTime: "paused_at updated_at"},
        paused=bool,
    ),
)  # fmt: skip
Scheduler = shape(
    "Scheduler",
    {
        int: "active_claim_count queued_run_count paused_task_count starved_run_count"
        " needs_attention_run_count",
        MaybeText: "paused_by paused_reason",
    },
    paused=bool, paused_at=MaybeTime, as_of=Time,
)  # fmt: skip
Cursor = shape(
    "Cursor", {str: "consumer_id stream_name subject_id", MaybeText: "last_delivery_id last_error"},
    last_sequence=int, last_delivered_at=MaybeTime, updated_at=Time,
)  # fmt: skip
Subscription = shape(
    "Subscription",
    {
        str: "subscription_id task_id bridge_instance_id", Time: "created_at updated_at",
        MaybeText: "workspace_id peer_id thread_id group_id",
    },
    scope=Scope, delivery_mode=Literal["direct-send", "reply"], cursor=Cursor, created_by=Ref,
)  # fmt: skip
Triage = shape(
    "Triage", {bool: "read archived dismissed"}, task_id=str, actor=Ref,
    last_seen_activity_at=MaybeTime, updated_at=MaybeTime,
)  # fmt: skip
Lane = Literal["my_work", "approvals", "failed_runs", "blocked", "archived"]
