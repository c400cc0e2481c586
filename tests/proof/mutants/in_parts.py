"""Breaks of the transitions that stand in server/db/sql, and of the server's own code."""

from typing import Final

from tests.proof.mutants.mutant import Mutant

IN_PARTS: Final = (
    Mutant(
        "an agent reviews its own work", "P2", "model", "server/db/sql/review_leases.sql",
        "and not _is_own_work(p_ws, v.run_id, p_reviewer.agent_name, p_reviewer.session_id)", "",
    ),
    Mutant(
        "a review that was taken a moment before is taken again", "P1", "race",
        "server/db/sql/review_leases.sql", "    if v_review.status = 'requested' then\n",
        "    if found then\n",
    ),
    Mutant(
        "the claim of a review that holds its task up leaves the fence", "P3", "model",
        "server/db/sql/review_leases.sql",
        "update task t set fence = t.fence + 1, updated_at = v_now",
        "update task t set updated_at = v_now",
    ),
    Mutant(
        "a run is claimed by hand whatever it waits for", "P6", "model",
        "server/db/sql/manual.sql", "  if not found then\n    perform _refuse_claim(",
        "  if false then\n    perform _refuse_claim(",
    ),
    Mutant(
        "a run of a paused task is offered", "P6", "model", "server/db/sql/budgets.sql",
        " and p_task.paused_by_task_id is null\n", "\n",
    ),
    Mutant(
        "a run is offered though the budget of its task is spent", "P6", "model",
        "server/db/sql/budgets.sql", "\n     and not _is_spent(p_task)\n", "\n",
    ),
    Mutant(
        "one run more than the limit of a concurrency key is leased", "P6", "model",
        "server/db/sql/slots.sql",
        "elsif (v_active ->> v_run.key)::int < v_run.most then",
        "elsif (v_active ->> v_run.key)::int <= v_run.most then",
    ),
    Mutant(
        "the slot of a lease that ended is not given to the next", "P7", "model",
        "server/db/sql/slots.sql",
        "where l.workspace_id = p_ws and l.concurrency_key = p_key and l.ended_at is null);",
        "where l.workspace_id = p_ws and l.concurrency_key = p_key);",
    ),
    Mutant(
        "what is resumed is not offered again", "P7", "model", "server/db/sql/pauses.sql",
        "case when v_by is null then v_ready else '{}' end);", "'{}');",
    ),
    Mutant(
        "an approval whose time is over is forgotten", "P7", "model",
        "server/db/sql/approvals.sql",
        "select array_agg(j.task_id order by j.task_id) filter (where j.rejects),",
        "select array_agg(j.task_id order by j.task_id) filter (where false),",
    ),
    Mutant(
        "a stream that falls behind passes over what it has no room for", "P9", "readers",
        "server/api/feed.py", "            self.overflowed = True\n        if not",
        "            return\n        if not",
    ),
    Mutant(
        "a stream skips an event between two pages of what is stored", "P9", "readers",
        "server/api/streams.py",
        "after = page[-1].sequence if len(page) == PAGE_COUNT else window",
        "after = page[-1].sequence + 1 if len(page) == PAGE_COUNT else window",
    ),
    Mutant(
        "the page of the log that a stream joins behind is told again", "P9", "readers",
        "server/store/streams.py",
        "where e.workspace_id = %(workspace_id)s and e.sequence > %(after)s\n   order by",
        "where e.workspace_id = %(workspace_id)s and e.sequence >= %(after)s\n   order by",
    ),
    Mutant(
        "a stream does not tell of what lies two levels below", "P9", "readers",
        "server/store/streams.py", "  union all\n  select a.start_id, coalesce(t.parent",
        "  union all\n  select a.start_id, coalesce(null, t.parent",
    ),
    Mutant(
        "a bridge goes on behind the last event of a page instead of the first", "P9", "readers",
        "server/db/sql/bridges.sql",
        "count(*) = 10000, min(p.sequence) filter", "count(*) = 10000, max(p.sequence) filter",
    ),
    Mutant(
        "retention takes the newest event too", "P8", "readers", "server/db/sql/retention.sql",
        "e.sequence < v_old;", "e.sequence <= v_old;",
    ),
    Mutant(
        "what a lease's holder calls is answered before it is committed", "P8", "model",
        "server/db/pool.py",
        "cursor = await self._limit.ask(connection,",
        """await connection.execute(b"commit")
            await connection.execute(b"begin")
            cursor = await self._limit.ask(connection,""",
    ),
    Mutant(
        "the answers of a batch go to the wrong callers", "P1", "rush", "server/api/batch.py",
        "in zip(batch, answers, strict=True)", "in zip(batch, reversed(answers), strict=True)",
    ),
    Mutant(
        "a run is read by its id, whatever workspace asks", "P12", "strangers",
        "server/store/runs.py",
        "on true\n where r.workspace_id = %(workspace_id)s and r.run_id",
        "on true\n where r.run_id",
    ),
    Mutant(
        "a key reaches the workspaces that a request names", "P12", "strangers",
        "server/api/identity.py",
        "        if own is not None:\n            workspace =",
        "        if own is not None and not named:\n            workspace =",
    ),
    Mutant(
        "a claim token stands in the log", "P12", "strangers", "schema.sql",
        "'sha256:' || encode((c.lease).token_hash, 'hex'),", "c.token,",
    ),
)  # fmt: skip
