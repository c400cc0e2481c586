"""Agent sessions."""

from typing import Any

from server.db.pool import Database

# Never waits: who holds a session notes the same.
SEE_SESSIONS = """
with free as (
  select l.ctid as place
    from unnest(%(sessions)s::text[]) x (session_id)
    cross join lateral (select k.ctid from agent_session k
      where k.workspace_id = %(workspace_id)s and k.session_id = x.session_id
        for no key update skip locked) l
), seen as (
  update agent_session s set updated_at = lease_now() from free f where s.ctid = f.place
)
select k.session_id, k.agent_name
  from unnest(%(sessions)s::text[]) x (session_id)
  cross join lateral (select k.session_id, k.agent_name from agent_session k
    where k.workspace_id = %(workspace_id)s and k.session_id = x.session_id offset 0) k
"""


async def see_sessions(db: Database, workspace_id: str, sessions: list[str]) -> dict[str, str]:
    """Notes that sessions are alive; answers whose each is, of those that are known."""
    return dict(await db.many(SEE_SESSIONS, workspace_id=workspace_id, sessions=sessions))


REGISTER_SESSION = """
insert into agent_session (workspace_id, session_id, agent_name, channel, capabilities)
values (%(workspace_id)s, %(session_id)s, %(agent_name)s, %(channel)s, %(capabilities)s)
on conflict (workspace_id, session_id) do update
   set channel = excluded.channel, capabilities = excluded.capabilities, updated_at = lease_now()
 where agent_session.agent_name = excluded.agent_name
returning agent_name
"""


async def register_session(
    db: Database,
    workspace_id: str,
    session_id: str,
    agent_name: str,
    channel: str | None,
    capabilities: list[str],
) -> bool:
    """Makes or renews a session; False if it belongs to another agent name."""
    row = await db.one(
        REGISTER_SESSION,
        workspace_id=workspace_id,
        session_id=session_id,
        agent_name=agent_name,
        channel=channel,
        capabilities=capabilities,
    )
    return row is not None


ATTEND_SESSION = """
insert into agent_session (workspace_id, session_id, agent_name)
values (%(workspace_id)s, %(session_id)s, %(agent_name)s)
on conflict (workspace_id, session_id) do update set updated_at = lease_now()
 where agent_session.agent_name = excluded.agent_name
returning agent_name
"""


async def attend_session(db: Database, workspace_id: str, session_id: str, agent_name: str) -> bool:
    """Makes a session that asks for no work yet, or renews it; False if it is another agent's."""
    row = await db.one(
        ATTEND_SESSION, workspace_id=workspace_id, session_id=session_id, agent_name=agent_name
    )
    return row is not None


LIST_SESSIONS = """
select json_build_object('session_id', s.session_id, 'workspace_id', s.workspace_id,
         'agent_name', s.agent_name, 'name', s.agent_name, 'channel', s.channel,
         'capabilities', s.capabilities, 'state', s.state, 'created_at', _utc(s.created_at),
         'updated_at', _utc(s.updated_at), 'lease_count', (select count(*) from lease l
           where l.workspace_id = %(workspace_id)s and l.session_id = s.session_id
             and l.ended_at is null)
         + (select count(*) from review_lease l
           where l.workspace_id = %(workspace_id)s and l.session_id = s.session_id
             and l.ended_at is null))::text, s.session_id
  from (select k.*, case when k.updated_at > x.since then 'active' else 'stopped' end as state
          from agent_session k
          cross join (select lease_now() - make_interval(secs => %(session_ttl)s) as since) x
         where k.workspace_id = %(workspace_id)s and k.session_id < %(after)s
           and (%(agent_name)s::text is null or k.agent_name = %(agent_name)s)
           and (%(state)s::text is null or (%(state)s = 'active') = (k.updated_at > x.since))
         order by k.session_id desc limit %(limit)s) s
 order by s.session_id desc
"""


async def list_sessions(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Sessions by id, the last first, each with its id."""
    return await db.many(LIST_SESSIONS, **filters)
