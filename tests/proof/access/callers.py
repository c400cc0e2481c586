"""The kinds of callers, and what each is due at each endpoint."""

from typing import Final, NamedTuple

from tests.proof.access.table import Row

LETTER: Final = {"viewer": "V", "agent": "A", "operator": "O", "admin": "M"}
ANONYMOUS: Final = frozenset({"none"})
# Whatever is wrong with a credential, it is told in the same words.
INVALID: Final = frozenset({"wrong", "unknown", "scheme", "empty", "two", "expired", "revoked"})
OK: Final = "ok"


class Caller(NamedTuple):
    """A kind of caller; `here` is the workspace that things are of, `there` another one."""

    name: str
    # What the credential is of: a role, or what is wrong with it.
    credential: str
    key_of: str = "here"
    # The workspace that the request names beside the key, and where it names it.
    names: str = ""
    by: str = ""
    # Whether it says which agent and session it is, where endpoints ask for that.
    agent: bool = True
    session: bool = True
    # Another agent than the one that made what is asked for.
    stranger: bool = False

    @property
    def acts_in(self) -> str:
        """The workspace in which it acts."""
        return self.names or self.key_of


CALLERS: Final = (
    *(Caller(f"credential: {kind}", kind) for kind in (*ANONYMOUS, *sorted(INVALID))),
    *(Caller(role, role) for role in ("viewer", "agent", "operator")),
    Caller("admin of here", "admin"),
    Caller("admin of all", "admin", "all", "here", "query"),
    Caller("admin of all, by header", "admin", "all", "here", "header"),
    Caller("admin of all, elsewhere", "admin", "all", "there", "query"),
    Caller("admin of all, nowhere", "admin", "all", "nowhere", "query"),
    Caller("admin of all, everywhere", "admin", "all", "*", "query"),
    Caller("admin of here, everywhere", "admin", "here", "*", "query"),
    Caller("operator, everywhere", "operator", "here", "*", "header"),
    Caller("agent without session", "agent", session=False),
    Caller("operator without agent name", "operator", agent=False),
    Caller("stranger", "agent", stranger=True),
    *(Caller(f"{role} of there", role, "there") for role in ("viewer", "agent", "operator")),
    Caller("admin of there", "admin", "there"),
    Caller("operator of there, naming here", "operator", "there", "here", "query"),
    Caller("agent of there, naming here", "agent", "there", "here", "header"),
    Caller("viewer of here, naming nothing that is", "viewer", "here", "nowhere", "header"),
)  # fmt: skip


class Due(NamedTuple):
    """What must come: `ok`, or a status and a code; in_item: the code of a bulk answer's item."""

    status: int
    code: str = OK
    in_item: bool = False


# What the rules below do not say: endpoint, caller, answer. An admin of all workspaces reaches
# every workspace and every key by its id; only such an admin makes workspaces.
SPECIAL: Final = {
    ("POST /api/workspaces", "admin of here"): Due(403, "forbidden"),
    ("POST /api/workspaces", "admin of there"): Due(403, "forbidden"),
    ("GET /api/workspaces/{workspace}", "admin of all, elsewhere"): Due(200),
    ("PATCH /api/workspaces/{workspace}", "admin of all, elsewhere"): Due(200),
    ("POST /api/keys/{key}/rotate", "admin of all, elsewhere"): Due(201),
    ("DELETE /api/keys/{key}", "admin of all, elsewhere"): Due(204),
    # There is nothing to claim there.
    ("POST /api/agent/tasks/claim-next", "agent of there"): Due(204),
    ("POST /api/agent/tasks/claim-next", "operator of there"): Due(204),
    ("POST /api/agent/tasks/claim-next", "admin of there"): Due(204),
    ("POST /api/agent/tasks/claim-next", "admin of all, elsewhere"): Due(204),
    ("POST /api/agent/reviews/claim-next", "agent of there"): Due(204),
    ("POST /api/agent/reviews/claim-next", "operator of there"): Due(204),
    ("POST /api/agent/reviews/claim-next", "admin of there"): Due(204),
    ("POST /api/agent/reviews/claim-next", "admin of all, elsewhere"): Due(204),
    # The run is leased by another session than the stranger's.
    **{
        (f"POST /api/agent/tasks/{{run}}/{verb}", "stranger"): Due(403, "foreign_run")
        for verb in ("heartbeat", "complete", "fail", "release")
    },
    **{
        (f"POST /api/task-runs/{{run}}/{verb}", "stranger"): Due(403, "foreign_run")
        for verb in ("start", "complete", "fail")
    },
    **{
        (f"POST /api/agent/tasks/bulk/{verb}", "stranger"): Due(200, "foreign_run", in_item=True)
        for verb in ("heartbeat", "complete")
    },
    **{
        (f"POST /api/agent/reviews/{{review}}/{verb}", "stranger"): Due(403, "foreign_run")
        for verb in ("heartbeat", "release")
    },
    ("POST /api/task-reviews/{review}/verdict", "stranger"): Due(403, "foreign_run"),
}


def due(row: Row, caller: Caller) -> Due:
    """What a caller is due: the order of checks of section 2.3, one after the other."""
    if not row.roles:
        return Due(row.ok)
    if caller.credential in ANONYMOUS:
        return Due(401, "authentication_required")
    if caller.credential in INVALID:
        return Due(401, "invalid_credentials")
    if LETTER[caller.credential] not in row.roles:
        operators = caller.credential == "agent" and "A" not in row.roles and "V" not in row.roles
        return Due(403, "forbidden_operator_action" if operators else "forbidden")
    if not _may_name(row, caller):
        return Due(404, "workspace_not_found")
    if missing := _missing(row, caller):
        return missing
    if special := SPECIAL.get((row.endpoint, caller.name)):
        return special
    if row.about and caller.acts_in == "there":
        if "bulk" in row.marks.split():
            return Due(200, f"{row.about}_not_found", in_item=True)
        return Due(404, f"{row.about}_not_found")
    if "own" in row.marks.split() and caller.stranger:
        return Due(403, "forbidden")
    return Due(row.ok)


def _may_name(row: Row, caller: Caller) -> bool:
    """Whether the workspace that the request names is one that this caller may act in."""
    if caller.names == "*":
        return caller.key_of == "all" and "star" in row.marks.split()
    if caller.names in ("", caller.key_of):
        return True
    return caller.key_of == "all" and caller.names != "nowhere"


def _missing(row: Row, caller: Caller) -> Due | None:
    """What the rules of sessions say of a caller who does not tell who it is."""
    by_lease = "hand" in row.marks or row.endpoint.endswith("/verdict")
    if row.agents and not (caller.session and caller.agent):
        return Due(401, "identity_required")
    if by_lease and caller.credential == "agent" and not caller.session:
        return Due(401, "identity_required")
    return None
