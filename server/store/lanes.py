"""Lanes: the distinct sets of demands on a claimer."""

from server.db.pool import Database

LIST_LANES = """
select lane_id, demands::text from lane where workspace_id = %(workspace_id)s order by lane_id
"""


async def list_lanes(db: Database, workspace_id: str) -> list[tuple[int, str]]:
    """All lanes of a workspace with their demands as JSON; ids rise in commit order."""
    return [(row[0], row[1]) for row in await db.many(LIST_LANES, workspace_id=workspace_id)]


# Nobody takes them up any more; claims still read them. Not the newest of a workspace, though they
# be idle: most will be wanted again.
RETIRE_LANES = """
update lane l set retired_at = lease_now()
  from (select x.workspace_id, x.lane_id,
               row_number() over (partition by x.workspace_id order by x.lane_id desc) as place
          from lane x where x.retired_at is null) x
 where x.place > %(kept)s
   and (l.workspace_id, l.lane_id) = (x.workspace_id, x.lane_id) and l.retired_at is null
   and l.created_at < (select lease_now()) - interval '1 hour'
   and not exists (select from offer o
     where o.workspace_id = l.workspace_id and o.lane_id = l.lane_id)
   and not exists (select from run r
     where r.workspace_id = l.workspace_id and r.lane_id = l.lane_id and r.due_at is not null)
"""


async def retire_lanes(db: Database, kept: int) -> int:
    """Retires lanes without queued runs, beyond so many of a workspace; how many."""
    return await db.run(RETIRE_LANES, kept=kept)


# Two hours are longer than any statement may take: nobody still holds the lane who took it up
# before it was retired. A run that may come back into the queue is queued or leased.
DELETE_LANES = """
delete from lane l
 where l.retired_at < (select lease_now()) - interval '2 hours'
   and not exists (select from offer o
     where o.workspace_id = l.workspace_id and o.lane_id = l.lane_id)
   and not exists (select from run r
     where r.workspace_id = l.workspace_id and r.lane_id = l.lane_id and r.due_at is not null)
   and (l.workspace_id, l.lane_id) not in (
     select r.workspace_id, r.lane_id from lease e
       join run r on r.workspace_id = e.workspace_id and r.run_id = e.run_id
      where e.ended_at is null)
"""


async def delete_lanes(db: Database) -> int:
    """Deletes lanes that were retired long ago and are not in use; how many."""
    return await db.run(DELETE_LANES)
