"""Lanes: the distinct sets of demands on a claimer."""

from server.db.pool import Database

LIST_LANES = """
select lane_id, demands::text from lane where workspace_id = %(workspace_id)s order by lane_id
"""


async def list_lanes(db: Database, workspace_id: str) -> list[tuple[int, str]]:
    """All lanes of a workspace with their demands as JSON; ids rise in commit order."""
    return [(row[0], row[1]) for row in await db.many(LIST_LANES, workspace_id=workspace_id)]
