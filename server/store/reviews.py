"""Reviews: who judges the result of a run, and what was said."""

from typing import Any, NamedTuple

from server.db.pool import Asked, Database

REQUEST_REVIEW = """
select body, status, replayed from request_review(
  %(workspace_id)s, %(cause)s::jsonb, %(run_id)s, %(task_id)s, %(request)s::jsonb, %(key)s,
  %(request_hash)s)
"""


class Requested(NamedTuple):
    """A review, the status of its first answer, and whether an earlier call asked for it."""

    body: str
    status: int
    replayed: bool


async def request_review(db: Database, **call: Any) -> Requested:
    """Asks for a review of a run by hand."""
    [row] = await db.many(REQUEST_REVIEW, **call)
    return Requested(*row)


CLAIM_REVIEW = """
select body, replayed, _utc(lease_now()) from claim_review(
  %(workspace_id)s, %(reviewer)s::json, %(outer)s, %(inner)s, %(outer_previous)s,
  %(inner_previous)s)
"""


class Claimed(NamedTuple):
    """What a reviewer gets, as JSON; None: there is nothing for it."""

    body: str | None
    replayed: bool
    server_time: str


async def claim_review(db: Database, **call: Any) -> Claimed:
    """Claims the next review that a reviewer may do."""
    [row] = await db.many(CLAIM_REVIEW, **call)
    return Claimed(*row)


WAITING_REVIEWS = """
select count(*), _utc(max(v.updated_at)) from review v
 where v.workspace_id = %(workspace_id)s and v.status = 'requested'
   and not (select _scheduler_paused(%(workspace_id)s))
"""


async def waiting_reviews(db: Database, workspace_id: str) -> tuple[int, str | None]:
    """How many reviews may be claimed, and when there was last one more."""
    [row] = await db.many(WAITING_REVIEWS, workspace_id=workspace_id)
    return row[0], row[1]


HEARTBEAT_REVIEW = "select heartbeat_review(%(workspace_id)s, %(call)s::json)"


async def heartbeat_review(db: Database, workspace_id: str, call: str) -> str:
    """Renews a review lease."""
    [row] = await db.many(HEARTBEAT_REVIEW, workspace_id=workspace_id, call=call)
    told: str = row[0]
    return told


RELEASE_REVIEW = "select body, replayed from release_review(%(workspace_id)s, %(call)s::json)"


async def release_review(db: Database, workspace_id: str, call: str) -> tuple[str, bool]:
    """Gives a review back; the answer, and whether an earlier call had done it."""
    [row] = await db.many(RELEASE_REVIEW, workspace_id=workspace_id, call=call)
    return row[0], row[1]


SUBMIT_REVIEW = """
select body, outcomes, replayed, offers from submit_review(
  %(workspace_id)s, %(call)s::json, %(by_hand)s, %(max_attempts)s)
"""


class Submitted(NamedTuple):
    """What a verdict answers; outcomes: what it recorded; offers: runs put into the queue."""

    body: str
    outcomes: list[str]
    replayed: bool
    offers: int


async def submit_review(db: Database, **call: Any) -> Submitted:
    """Records a verdict with what follows from it."""
    [row] = await db.many(SUBMIT_REVIEW, **call)
    return Submitted(*row)


GET_REVIEW = """
select body::text from review_wire
 where workspace_id = %(workspace_id)s and review_id = %(review_id)s
"""


async def get_review(db: Database, workspace_id: str, review_id: str) -> str | None:
    """One review, as JSON."""
    row = await db.one(GET_REVIEW, workspace_id=workspace_id, review_id=review_id)
    return row[0] if row else None


# Of one task, or of one run: whichever is named.
LIST_REVIEWS = """
select _cut_result(w.body)::text, p.updated_at, p.review_id
  from (select v.updated_at, v.review_id from review v
         where v.workspace_id = %(workspace_id)s
           and v.task_id = coalesce(%(task_id)s::text, (select r.task_id from run r
             where r.workspace_id = %(workspace_id)s and r.run_id = %(run_id)s))
           and (v.updated_at, v.review_id) < (%(after_at)s::timestamptz, %(after_id)s::text)
           and _review_fits(v, %(run_id)s, %(status)s, %(reviewer_session_id)s, null)
         order by v.updated_at desc, v.review_id desc limit %(limit)s) p
  cross join lateral (select w.body from review_wire w
    where w.workspace_id = %(workspace_id)s and w.review_id = p.review_id offset 0) w
 order by p.updated_at desc, p.review_id desc
"""


async def list_reviews(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Reviews of a task or run, last changed first, each with its sort values."""
    return await db.many(LIST_REVIEWS, **filters)


SEARCH_REVIEWS = """
select _cut_result(w.body)::text, p.review_id
  from (select v.review_id from review v
         where v.workspace_id = %(workspace_id)s and v.review_id < %(after)s
           and _review_fits(v, null, %(status)s, null, %(gating)s)
         order by v.review_id desc limit %(limit)s) p
  cross join lateral (select w.body from review_wire w
    where w.workspace_id = %(workspace_id)s and w.review_id = p.review_id offset 0) w
 order by p.review_id desc
"""


async def search_reviews(db: Database, **filters: Any) -> list[tuple[Any, ...]]:
    """Reviews of the workspace by id, the last first, each with its id."""
    return await db.many(SEARCH_REVIEWS, **filters)


HELD_REVIEWS = """
select _cut_result(w.body)::text
  from (select l.review_id, l.claimed_at from review_lease l
         where l.workspace_id = %(workspace_id)s and l.session_id = %(session_id)s
           and l.ended_at is null
         order by l.claimed_at, l.review_id limit %(limit)s) p
  cross join lateral (select w.body from review_wire w
    where w.workspace_id = %(workspace_id)s and w.review_id = p.review_id offset 0) w
 order by p.claimed_at, p.review_id
"""


async def held_reviews(db: Database, **filters: Any) -> list[str]:
    """The reviews that a session holds, oldest claim first, as JSON."""
    return [row[0] for row in await db.many(HELD_REVIEWS, **filters)]


LATE_REVIEWS = "select workspace_id, reviews from late_reviews(%(limit)s, %(without)s)"


async def late_reviews(db: Asked, limit: int, without: list[str]) -> list[tuple[str, list[str]]]:
    """The reviews that are over their time, by workspace; not of those that are held up."""
    rows = await db.many(LATE_REVIEWS, limit=limit, without=without)
    return [(row[0], row[1]) for row in rows]


class Expired(NamedTuple):
    """The outcomes that were recorded, and how many leases ended without one."""

    outcomes: list[str]
    put_back: int


EXPIRE_REVIEWS = """
select outcomes, put_back from expire_reviews(
  %(workspace_id)s, %(reviews)s, %(max_attempts)s, %(max_expiries)s)
"""


async def expire_reviews(
    db: Asked, workspace_id: str, reviews: list[str], max_attempts: int, max_expiries: int
) -> Expired:
    """Ends what is late among these reviews, judged again under their locks."""
    [row] = await db.many(
        EXPIRE_REVIEWS, workspace_id=workspace_id, reviews=reviews, max_attempts=max_attempts,
        max_expiries=max_expiries,
    )  # fmt: skip
    return Expired(*row)


SET_REVIEW_ASIDE = "select set_review_aside(%(workspace_id)s, %(review_id)s)"


async def set_review_aside(db: Asked, workspace_id: str, review_id: str) -> None:
    """Leaves a review that cannot be dealt with for a later pass."""
    await db.many(SET_REVIEW_ASIDE, workspace_id=workspace_id, review_id=review_id)
