"""Workspaces."""

from typing import Any, NamedTuple

from server.db.pool import Database


class WorkspaceRow(NamedTuple):
    """A workspace in two words; neither ever changes."""

    workspace_id: str
    name: str


FIND_WORKSPACE = """
select workspace_id, name from workspace where workspace_id = %(named)s or name = %(named)s
"""


async def find_workspace(db: Database, named: str) -> WorkspaceRow | None:
    """The workspace with this id or name."""
    row = await db.one(FIND_WORKSPACE, named=named)
    return WorkspaceRow(*row) if row else None


GET_WORKSPACE = """
select json_build_object('workspace', _workspace(w))::text, w.version
  from workspace w where w.workspace_id = %(workspace_id)s
"""


async def get_workspace(db: Database, workspace_id: str) -> tuple[str, int]:
    """A workspace as JSON, and its version."""
    [row] = await db.many(GET_WORKSPACE, workspace_id=workspace_id)
    return row[0], row[1]


LIST_WORKSPACES = """
select _workspace(w)::text, w.name
  from workspace w
 where (%(reach)s::text is null or w.workspace_id = %(reach)s)
   and (%(after)s::text is null or w.name > %(after)s)
 order by w.name limit %(limit)s
"""


async def list_workspaces(
    db: Database, reach: str | None, after: str | None, limit: int
) -> list[tuple[Any, ...]]:
    """Workspaces by name, each with its name."""
    return await db.many(LIST_WORKSPACES, reach=reach, after=after, limit=limit)


CREATE_WORKSPACE = """
select body, version, replayed from create_workspace(
  %(workspace_id)s, %(cause)s::jsonb, %(key)s, %(request_hash)s, %(workspace)s::jsonb)
"""


async def create_workspace(db: Database, **call: Any) -> tuple[str, int, bool]:
    """Makes a workspace; answers it as JSON, its version, and whether an earlier call made it."""
    [row] = await db.many(CREATE_WORKSPACE, **call)
    return row[0], row[1], row[2]


PATCH_WORKSPACE = """
select body, version from patch_workspace(
  %(workspace_id)s, %(cause)s::jsonb, %(version)s, %(changes)s::jsonb)
"""


async def patch_workspace(
    db: Database, workspace_id: str, cause: str, version: int | None, changes: str
) -> tuple[str, int]:
    """Changes a workspace; answers it as JSON, and its version."""
    [row] = await db.many(
        PATCH_WORKSPACE, workspace_id=workspace_id, cause=cause, version=version, changes=changes
    )
    return row[0], row[1]


READ_SETTINGS = """
select _settings(settings)::text from workspace where workspace_id = %(workspace_id)s
"""


async def read_settings(db: Database, workspace_id: str) -> str:
    """Every setting of a workspace, its own or the default, as JSON."""
    [row] = await db.many(READ_SETTINGS, workspace_id=workspace_id)
    settings: str = row[0]
    return settings
