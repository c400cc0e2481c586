"""Every code that an answer may carry."""

from typing import Final, NamedTuple


class Code(NamedTuple):
    """What is the same in every error of one code."""

    status: int
    severity: str
    category: str
    title: str
    message: str


CODES: Final[dict[str, Code]] = {
    "malformed_json": Code(
        400, "error", "request", "Malformed JSON", "The body is not one JSON object in UTF-8."
    ),
    "invalid_query": Code(
        400, "error", "request", "Invalid parameter", "A query parameter or header is not valid."
    ),
    "invalid_cursor": Code(
        400,
        "error",
        "request",
        "Invalid cursor",
        "The cursor is damaged or belongs to another list or filter.",
    ),
    "authentication_required": Code(
        401, "error", "auth", "Authentication required", "This call needs an API key."
    ),
    "invalid_credentials": Code(
        401, "error", "auth", "Invalid credentials", "The API key is not valid."
    ),
    "identity_required": Code(
        401, "error", "session", "Identity required", "A header that names the caller is missing."
    ),
    "forbidden": Code(
        403, "error", "auth", "Forbidden", "The role of this key does not allow this call."
    ),
    "forbidden_operator_action": Code(
        403,
        "error",
        "auth",
        "Operator action",
        "This call is for operators, not for agents: ask one to make it.",
    ),
    "identity_mismatch": Code(
        403,
        "error",
        "session",
        "Identity mismatch",
        "The session or agent name belongs to somebody else.",
    ),
    "own_work": Code(
        403, "error", "review", "Own work", "Nobody reviews what they did themselves."
    ),
    "foreign_run": Code(
        403, "error", "lease", "Foreign run", "The lease on this run is another session's."
    ),
    "route_not_found": Code(404, "error", "request", "No such route", "There is no such path."),
    "workspace_not_found": Code(
        404, "error", "workspace", "No such workspace", "There is no such workspace."
    ),
    "task_not_found": Code(404, "error", "task", "No such task", "There is no such task."),
    "run_not_found": Code(404, "error", "run", "No such run", "There is no such run."),
    "review_not_found": Code(404, "error", "review", "No such review", "There is no such review."),
    "dependency_not_found": Code(
        404, "error", "dependency", "No such dependency", "There is no such dependency."
    ),
    "profile_not_found": Code(
        404, "error", "profile", "No such profile", "The task has no profile of its own."
    ),
    "subscription_not_found": Code(
        404, "error", "subscription", "No such subscription", "There is no such subscription."
    ),
    "bridge_not_found": Code(404, "error", "bridge", "No such bridge", "There is no such bridge."),
    "key_not_found": Code(404, "error", "key", "No such key", "There is no such key."),
    "method_not_allowed": Code(
        405, "error", "request", "Method not allowed", "This path does not take that method."
    ),
    "task_exists": Code(409, "error", "task", "Task exists", "A task with this id exists or did."),
    "dependency_exists": Code(
        409, "error", "dependency", "Dependency exists", "The task waits for that one already."
    ),
    "subscription_exists": Code(
        409,
        "error",
        "subscription",
        "Subscription exists",
        "A subscription with this id belongs to another task.",
    ),
    "bridge_exists": Code(409, "error", "bridge", "Bridge exists", "A bridge of this name exists."),
    "key_exists": Code(409, "error", "key", "Key exists", "A key with this name exists."),
    "workspace_exists": Code(
        409, "error", "workspace", "Workspace exists", "A workspace with this name exists."
    ),
    "task_not_draft": Code(
        409, "error", "task", "Not a draft", "Only a draft can be published; this task is none."
    ),
    "task_draft": Code(
        409, "error", "task", "Task is a draft", "The task is a draft; publish it first."
    ),
    "task_blocked": Code(
        409,
        "error",
        "task",
        "Task blocked",
        "A gate of the task is closed; reasons tells which, and what to wait for.",
    ),
    "task_canceled": Code(409, "error", "task", "Task canceled", "The task is canceled for good."),
    "task_already_terminal": Code(
        409, "info", "task", "Task already ended", "The task has ended already."
    ),
    "open_run_exists": Code(
        409, "error", "task", "Open run exists", "The task has a run that has not ended."
    ),
    "attempts_exhausted": Code(
        409, "error", "task", "Attempts exhausted", "The task has no attempt left."
    ),
    "approval_not_pending": Code(
        409,
        "error",
        "task",
        "Approval not pending",
        "The task waits for no approval; approval_state tells where it stands.",
    ),
    "review_open": Code(
        409, "error", "review", "Review open", "The task waits for a review of its newest run."
    ),
    "task_has_children": Code(
        409, "error", "task", "Task has children", "A task with children cannot be deleted."
    ),
    "profile_locked": Code(
        409,
        "error",
        "task",
        "Profile locked",
        "The profile cannot change while a run is worked on.",
    ),
    "dependency_cycle": Code(
        409, "error", "dependency", "Dependency cycle", "The dependency would close a cycle."
    ),
    "dependency_limit": Code(
        409, "error", "dependency", "Too many dependencies", "The task waits for too many tasks."
    ),
    "depth_limit": Code(
        409, "error", "task", "Tree too deep", "The tree of tasks would become too deep."
    ),
    "children_limit": Code(
        409, "error", "task", "Too many children", "The task would have too many children."
    ),
    "subtree_limit": Code(
        409, "error", "task", "Tree too large", "The tree of tasks would become too large."
    ),
    "quota_exceeded": Code(
        409, "error", "task", "Quota exceeded", "The workspace has too many open tasks."
    ),
    "lane_limit": Code(
        409, "error", "run", "Too many lanes", "Queued runs make too many different demands."
    ),
    "run_not_claimable": Code(
        409, "error", "run", "Run not claimable", "Something keeps the run from being claimed."
    ),
    "run_not_queued": Code(409, "error", "run", "Run not queued", "The run is not in the queue."),
    "run_not_claimed": Code(
        409, "error", "run", "Run not claimed", "Nobody holds the run, or it has begun already."
    ),
    "session_already_bound": Code(
        409, "error", "run", "Session already bound", "A session works on the run already."
    ),
    "lease_held": Code(
        409, "error", "lease", "Lease held", "An agent holds the run; only force takes it away."
    ),
    "task_run_already_terminal": Code(
        409, "info", "run", "Run already ended", "The run has ended already."
    ),
    "task_run_not_releasable": Code(
        409, "error", "run", "Run not releasable", "Nobody holds a lease on the run."
    ),
    "task_run_still_active": Code(
        409, "error", "run", "Run still active", "The run has not ended yet."
    ),
    "task_run_not_recoverable": Code(
        409, "error", "run", "Run not recoverable", "The run does not need attention."
    ),
    "run_superseded": Code(
        409, "error", "run", "Run superseded", "The task has a newer run than this one."
    ),
    "run_already_retried": Code(
        409, "error", "run", "Run already retried", "The run has a successor already."
    ),
    "invalid_claim_token": Code(
        409, "error", "lease", "Invalid claim token", "The claim token is not one of this run."
    ),
    "stale_fence": Code(
        409, "error", "lease", "Stale fence", "The run was claimed again since this claim."
    ),
    "no_active_lease": Code(
        409, "error", "lease", "No active lease", "The session holds no lease on this run."
    ),
    "lease_expired": Code(
        409, "error", "lease", "Lease expired", "The lease expired and was taken back."
    ),
    "lease_revoked": Code(409, "warn", "lease", "Lease revoked", "The lease was taken back."),
    "lease_released": Code(
        409, "warn", "lease", "Lease released", "The lease was given back already."
    ),
    "run_canceled": Code(409, "warn", "lease", "Run canceled", "The run was canceled."),
    "run_not_terminal": Code(
        409, "error", "run", "Run not ended", "The run has not ended; there is nothing to review."
    ),
    "review_policy_mismatch": Code(
        409, "error", "review", "Review policy mismatch", "It is not for runs that ended so."
    ),
    "review_already_recorded": Code(
        409, "info", "review", "Review already recorded", "Another verdict on the review stands."
    ),
    "review_closed": Code(409, "info", "review", "Review closed", "The review was canceled."),
    "claim_key_spent": Code(
        409, "warn", "lease", "Claim key spent", "All leases of the repeated claim are over."
    ),
    "key_revoked": Code(409, "error", "auth", "Key revoked", "A revoked key cannot be rotated."),
    "last_admin_key": Code(
        409, "error", "auth", "Last admin key", "The last admin key cannot be revoked."
    ),
    "idempotency_in_progress": Code(
        409, "warn", "request", "Still in progress", "The first call with this key still runs."
    ),
    "version_mismatch": Code(
        412, "error", "request", "Version mismatch", "The object has changed since that version."
    ),
    "body_too_large": Code(413, "error", "request", "Body too large", "The body is too large."),
    "value_too_large": Code(413, "error", "request", "Value too large", "A value is too large."),
    "unsupported_media_type": Code(
        415, "error", "request", "Unsupported media type", "A body must be uncompressed JSON."
    ),
    "validation_failed": Code(
        422, "error", "request", "Validation failed", "A field of the request breaks its rule."
    ),
    "unknown_field": Code(
        422, "error", "request", "Unknown field", "The request has a field that is not known."
    ),
    "immutable_field": Code(
        422, "error", "request", "Immutable field", "This call may not set one of the fields."
    ),
    "secret_in_json": Code(
        422, "error", "request", "Secret in JSON", "Metadata may not hold a claim_token."
    ),
    "empty_patch": Code(422, "error", "request", "Empty patch", "The patch changes no field."),
    "idempotency_key_reused": Code(
        422, "error", "request", "Key reused", "The key was used for another request."
    ),
    "claim_token_required": Code(
        422, "error", "lease", "Claim token required", "This call needs the claim token."
    ),
    "currency_mismatch": Code(
        422, "error", "lease", "Currency mismatch", "The task counts its cost in another currency."
    ),
    "dependency_self": Code(
        422, "error", "dependency", "Dependency on itself", "A task cannot wait for itself."
    ),
    "ref_unknown": Code(
        422, "error", "request", "Unknown ref", "No item of the request has that ref."
    ),
    "duplicate_ref": Code(
        422, "error", "request", "Duplicate ref", "Two items of the request have one ref."
    ),
    "duplicate_item": Code(
        422, "error", "request", "Duplicate item", "The request names one run twice."
    ),
    "bulk_too_large": Code(
        422, "error", "request", "Too many items", "The request has too many items."
    ),
    "force_op_requires_reason": Code(
        422, "error", "run", "Reason required", "This call needs a reason."
    ),
    "bridge_url_refused": Code(
        422, "error", "bridge", "URL refused", "The server does not send to this URL."
    ),
    "retry_chain_too_deep": Code(
        422, "error", "run", "Retry chain too deep", "Too many runs retry one another."
    ),
    "rate_limited": Code(429, "warn", "request", "Rate limited", "Too many calls; wait a little."),
    "head_too_large": Code(
        431, "error", "request", "Headers too large", "Address and headers are too large."
    ),
    "internal_error": Code(
        500, "critical", "server", "Internal error", "The server made a mistake."
    ),
    "database_unavailable": Code(
        503, "error", "server", "Database unavailable", "The database does not answer."
    ),
    "shutting_down": Code(
        503, "error", "server", "Shutting down", "This server process is shutting down."
    ),
}
