"""What operators do to runs against their holders' will, one by one or many at once."""

from typing import Annotated

from msgspec import Meta

from server import limits
from server.contract.base import (
    Answer,
    CauseMetadata,
    ErrorEnvelope,
    Identifier,
    Metadata,
    Note,
    Reason,
    Request,
)
from server.contract.runs import Delay, Run
from server.errors import Problem

RunIds = Annotated[list[Identifier], Meta(min_length=1)]


class RunPairResponse(Answer):
    """A run and the run that follows it."""

    previous_run: Run
    run: Run


class BulkRunResult(Answer):
    """What became of one run."""

    run_id: str
    ok: bool
    run: Run | None
    error: ErrorEnvelope | None


class BulkRunResponse(Answer):
    """What became of each run, in input order."""

    results: list[BulkRunResult]


class BulkRunPairResult(BulkRunResult):
    """What became of one run, and the run that follows it."""

    previous_run: Run | None


class BulkRunPairResponse(Answer):
    """What became of each run, in input order."""

    results: list[BulkRunPairResult]


class ForceReleaseRequest(Request):
    """Why a run is taken from its holder, and when it may be claimed again."""

    reason: Reason | None = None
    note: Note | None = None
    delay_seconds: Delay = 0
    metadata: CauseMetadata | None = None


class ForceFailRequest(Request):
    """Why a run is ended; a reason must be given."""

    reason: Reason | None = None
    metadata: CauseMetadata | None = None

    def __post_init__(self) -> None:
        _check_reason(self.reason)


class ForceRetryRequest(Request):
    """Why and when an ended run is to be tried again; metadata is the new run's."""

    reason: Reason | None = None
    metadata: Metadata | None = None
    delay_seconds: Delay = 0


class BulkReleaseRequest(Request, kw_only=True):
    """Which runs are taken from their holders, and why."""

    run_ids: RunIds
    reason: Reason | None = None
    metadata: CauseMetadata | None = None

    def __post_init__(self) -> None:
        _check_count(self.run_ids)


class BulkFailRequest(BulkReleaseRequest):
    """Which runs are ended, and why; a reason must be given."""

    def __post_init__(self) -> None:
        _check_count(self.run_ids)
        _check_reason(self.reason)


class BulkRetryRequest(Request, kw_only=True):
    """Which runs are to be tried again, and why; metadata is the new runs'."""

    run_ids: RunIds
    reason: Reason | None = None
    metadata: Metadata | None = None

    def __post_init__(self) -> None:
        _check_count(self.run_ids)


def _check_count(run_ids: list[str]) -> None:
    if len(run_ids) > limits.RUNS_PER_FORCE_COUNT:
        limit = limits.RUNS_PER_FORCE_COUNT
        raise Problem("bulk_too_large", limit=limit, count=len(run_ids))


def _check_reason(reason: str | None) -> None:
    if reason is None:
        raise Problem("force_op_requires_reason")
