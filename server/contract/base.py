"""What all nouns share on the wire: the Struct kinds, text and time types, errors."""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from server import limits

T = TypeVar("T")


class Answer(Struct, kw_only=True, forbid_unknown_fields=True):
    """What the server sends: every field is always there."""


class Request(Struct, kw_only=True, forbid_unknown_fields=True):
    """What a create or action route takes: null, blank and absent are the same."""

    immutable: ClassVar[frozenset[str]] = frozenset()


class Patch(Request, kw_only=True):
    """What a PATCH takes: absent is unchanged, null is cleared; UNSET stands for absent."""


class Query(Struct, kw_only=True, forbid_unknown_fields=True):
    """The parameters of a GET."""

    # Lists that may be given empty; others then count as not given.
    kept_empty: ClassVar[frozenset[str]] = frozenset()


class PageQuery(Query, kw_only=True):
    """The parameters of every list."""

    limit: Annotated[int, Meta(ge=1, le=limits.PAGE_LIMIT_COUNT)] = limits.PAGE_DEFAULT_COUNT
    cursor: str | None = None

    @property
    def reach(self) -> int:
        """How many rows to look for: one more than are shown says that others follow."""
        return self.limit + 1


class FieldError(ValueError):
    """A field that breaks a rule which needs more than the field's own type."""

    def __init__(self, field: str, rule: str, message: str) -> None:
        self.field = field
        self.rule = rule
        super().__init__(message)


def in_utc(field: str, value: T) -> T:
    """A time as PostgreSQL takes it, which knows no offset of 16 hours; all else as it is.

    Raises FieldError if its year in UTC has no four digits.
    """
    if not isinstance(value, datetime):
        return value
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise FieldError(field, "range", "is not between the years 1 and 9999 in UTC") from None


class Encoded(Struct, Generic[T], frozen=True):
    """An answer of Struct T that the database has rendered already."""

    body: bytes
    version: int | None = None
    replayed: bool = False
    status: int | None = None
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class FreeJson:
    """Any JSON value of a caller, checked and in its compact form."""

    __slots__ = ("text",)
    limit_bytes: ClassVar[int] = limits.VALUE_LIMIT_BYTES
    refuses_tokens: ClassVar[bool] = False

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FreeJson) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.text)} characters)"


class Metadata(FreeJson):
    """Metadata of a task or run."""

    __slots__ = ()
    limit_bytes = limits.METADATA_LIMIT_BYTES
    refuses_tokens = True


class CauseMetadata(FreeJson):
    """Metadata of a cancel or fail."""

    __slots__ = ()
    limit_bytes = limits.CAUSE_METADATA_LIMIT_BYTES
    refuses_tokens = True


def _plain(value: Any) -> Any:
    """Puts a free JSON value into an encoded Struct as it is."""
    if isinstance(value, FreeJson):
        return msgspec.Raw(value.text.encode())
    raise NotImplementedError(type(value).__name__)


def to_json(value: object) -> str:
    """A request Struct as JSON text for the database; UNSET fields are left out."""
    return msgspec.json.encode(value, enc_hook=_plain).decode()


BYTES: dict[str, Any] = {"unit": "bytes"}

Time = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$",
        extra_json_schema={"format": "date-time"},
    ),
]
TimeInput = Annotated[datetime, Meta(tz=True)]
Json = Any
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Version = Annotated[int, Meta(ge=1, le=limits.VERSION_LIMIT)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

Identifier = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
IdempotencyKey = Annotated[
    str, Meta(pattern=r"^[!-~]+$", max_length=limits.IDEMPOTENCY_KEY_LIMIT_CHARACTERS)
]
WorkspaceSelector = Annotated[str, Meta(max_length=128, extra={"selects": "workspace"})]
Name = Annotated[str, Meta(min_length=1, max_length=limits.NAME_LIMIT_CHARACTERS)]
Reason = Annotated[str, Meta(max_length=limits.REASON_LIMIT_BYTES, extra=BYTES)]
Note = Annotated[str, Meta(max_length=limits.NOTE_LIMIT_BYTES, extra=BYTES)]
Channel = Annotated[str, Meta(pattern=r"^(?!coord-)[a-z0-9][a-z0-9_-]{0,63}$")]
Selector = Annotated[
    str,
    Meta(min_length=1, max_length=limits.SELECTOR_LIMIT_BYTES, pattern=r"^[^\s,]+$", extra=BYTES),
]
Selectors = Annotated[list[Selector], Meta(max_length=limits.SELECTORS_LIMIT_COUNT)]

ActorKind = Literal["human", "agent_session", "automation", "extension", "network_peer", "daemon"]
OriginKind = Literal[
    "cli", "web", "uds", "http", "automation", "extension", "network", "agent_session", "daemon"
]
Priority = Literal["low", "medium", "high", "urgent"]


class Actor(Answer):
    """Who did something."""

    kind: ActorKind
    ref: str


class Origin(Answer):
    """Through what something was done."""

    kind: OriginKind
    ref: str


class Progress(Answer):
    """How far the holder of a lease says it is."""

    percent: float | None
    message: str | None
    updated_at: Time


class Usage(Answer):
    """What work has used up."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    total_cost: float
    cost_currency: str | None
    tool_calls: int
    turns: int


class Budget(Answer):
    """What a task may use up."""

    max_total_tokens: int | None
    max_cost: float | None


class BudgetRemaining(Answer):
    """What is left of a budget; null is unlimited."""

    total_tokens: int | None
    cost: float | None


class Diagnostic(Answer):
    """What is wrong, for programs and for people."""

    id: str
    code: str
    severity: Literal["ok", "info", "warn", "error", "critical"]
    category: str
    title: str
    message: str
    suggested_command: str | None
    doc_url: str
    data_freshness: Literal["live", "offline", "stale"]
    evidence: dict[str, Any]


class ErrorEnvelope(Answer):
    """The body of every answer of status 400 or more."""

    error: str
    diagnostic: Diagnostic
