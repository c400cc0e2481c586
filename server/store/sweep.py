"""What the background services ask of the database."""

from typing import NamedTuple

from server.db.pool import Asked, Database

SWEEP_LEASES = "select workspace_id, runs from sweep_leases(%(limit)s, %(without)s)"


async def sweep_leases(db: Asked, limit: int, without: list[str]) -> list[tuple[str, list[str]]]:
    """The runs whose lease lapsed, by workspace; not of those that are held up."""
    rows = await db.many(SWEEP_LEASES, limit=limit, without=without)
    return [(row[0], row[1]) for row in rows]


class Expired(NamedTuple):
    """How many leases ended, how many runs stopped for good, how many came into the queue."""

    expired: int
    quarantined: int
    offers: int


EXPIRE_RUNS = """
select expired, quarantined, offers from expire_runs(%(workspace_id)s, %(runs)s)
"""


async def expire_runs(db: Asked, workspace_id: str, runs: list[str]) -> Expired:
    """Ends the leases among these that have lapsed, judged again under their locks."""
    [row] = await db.many(EXPIRE_RUNS, workspace_id=workspace_id, runs=runs)
    return Expired(*row)


SET_ASIDE = "select set_aside(%(workspace_id)s, %(run_id)s)"


async def set_aside(db: Asked, workspace_id: str, run_id: str) -> None:
    """Leaves a run that cannot be expired for a later pass."""
    await db.many(SET_ASIDE, workspace_id=workspace_id, run_id=run_id)


DUE_WORKSPACES = "select distinct workspace_id from run where due_at <= (select lease_now())"


async def due_workspaces(db: Asked) -> list[str]:
    """The workspaces with runs whose time has come."""
    return [row[0] for row in await db.many(DUE_WORKSPACES)]


PROMOTE_RUNS = "select promote_runs(%(workspace_id)s, %(limit)s)"


async def promote_runs(db: Asked, workspace_id: str, limit: int) -> int:
    """Puts due runs into the queue; how many."""
    [row] = await db.many(PROMOTE_RUNS, workspace_id=workspace_id, limit=limit)
    promoted: int = row[0]
    return promoted


CASCADING_WORKSPACES = "select distinct workspace_id from cascade_task"


async def cascading_workspaces(db: Asked) -> list[str]:
    """The workspaces where a failed dependency has more to cancel."""
    return [row[0] for row in await db.many(CASCADING_WORKSPACES)]


CONTINUE_CASCADE = "select canceled, offers from continue_cascade(%(workspace_id)s)"


async def continue_cascade(db: Asked, workspace_id: str) -> tuple[int, int]:
    """Cancels one bounded batch; how many tasks, and how many runs came into the queue."""
    [row] = await db.many(CONTINUE_CASCADE, workspace_id=workspace_id)
    return row[0], row[1]


DELETE_OLD_KEYS = """
delete from idempotency_key k
 using (select workspace_id, key_id, key from idempotency_key
         where created_at < (select lease_now()) - interval '24 hours'
         order by created_at limit %(limit)s) old
 where (k.workspace_id, k.key_id, k.key) = (old.workspace_id, old.key_id, old.key)
   -- One that was used anew meanwhile stays.
   and k.created_at < (select lease_now()) - interval '24 hours'
"""


async def delete_old_keys(db: Database, limit: int) -> int:
    """Forgets idempotency keys past their 24 hours; how many."""
    return await db.run(DELETE_OLD_KEYS, limit=limit)


DELETE_OLD_SESSIONS = """
delete from agent_session s
 using (select workspace_id, session_id from agent_session
         where updated_at < lease_now() - interval '30 days'
         order by updated_at limit 1000) old
 where (s.workspace_id, s.session_id) = (old.workspace_id, old.session_id)
   and s.updated_at < lease_now() - interval '30 days'
   and not exists (select from lease l where l.workspace_id = s.workspace_id
                      and l.session_id = s.session_id and l.ended_at is null)
   and not exists (select from review_lease l where l.workspace_id = s.workspace_id
                      and l.session_id = s.session_id and l.ended_at is null)
"""


async def delete_old_sessions(db: Database) -> int:
    """Forgets sessions without a lease that were not seen for 30 days; how many."""
    return await db.run(DELETE_OLD_SESSIONS)
