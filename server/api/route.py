"""A row of the table of routes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from server import limits
from server.errors import Problem

Handler = Callable[..., Awaitable[Any]]

# What an agent does when it may not do this itself.
WAIT: Final = "Wait: a person decides; the task's stream tells task.approved or task.rejected."
INSTEAD: Final = {
    "tasks.approve": WAIT,
    "tasks.reject": WAIT,
    "tasks.update": "Create another task that says it right; cancel one that you created.",
    "tasks.cancel_run": "Fail or release the run that you hold; leave those of others to them.",
    "tasks.force_release_run": "Release the run that you hold; the sweep ends others' leases.",
    "tasks.force_fail_run": "Fail the run that you hold; the sweep ends others' leases.",
}
ASK: Final = "Ask a person who has an operator's key."
LETTERS: Final = {"viewer": "V", "agent": "A", "operator": "O", "admin": "M"}


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint: where it is, who may call it, and what its handler does not say."""

    method: str
    path: str
    handler: Handler
    action: str
    # The letters of the roles that may call it; empty: anybody, without a credential.
    roles: str = "VAOM"
    ok: tuple[int, ...] = (200,)
    # Takes an Idempotency-Key.
    keyed: bool = False
    # Takes X-Run-ID and X-Claim-Token.
    guarded: bool = False
    # An operator's action: an agent is told so.
    operator: bool = False
    # Admins may name the workspace `*`.
    every_workspace: bool = False
    # Answers a file of this kind instead of JSON.
    media_type: str = "application/json"
    body_limit_bytes: int = limits.BODY_LIMIT_BYTES
    # Codes beside those that every route of its kind answers.
    errors: tuple[str, ...] = ()

    @property
    def agent(self) -> bool:
        """Whether the caller must be an agent's session."""
        return self.path.startswith("/api/agent/")

    @property
    def streams(self) -> bool:
        """Whether it answers a stream, which a ticket opens as well."""
        return self.media_type == "text/event-stream"

    def admit(self, role: str) -> None:
        """Refuses a role that may not call this."""
        if LETTERS[role] not in self.roles:
            if not self.operator or role != "agent":
                raise Problem("forbidden", role=role, action=self.action)
            instead = INSTEAD.get(self.action, ASK)
            raise Problem(
                "forbidden_operator_action", role=role, action=self.action, retryable=False,
                instead=instead,
            )  # fmt: skip
