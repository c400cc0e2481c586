"""The one exception that becomes an answer, and the body of that answer."""

from typing import Any

import msgspec

from server.codes import CODES


class Problem(Exception):  # noqa: N818 - an answer, not a fault of the program
    """An answer of status 400 or more: a code, a sentence for its reader, and evidence."""

    def __init__(self, code: str, message: str | None = None, /, **evidence: Any) -> None:
        self.entry = CODES[code]
        self.code = code
        self.message = message or self.entry.message
        self.evidence = evidence
        super().__init__(self.code, self.message)

    @property
    def status(self) -> int:
        return self.entry.status

    @property
    def retry_after_seconds(self) -> int | None:
        """What Retry-After says; None where the contract sends no such header."""
        if self.status not in (429, 503) and self.code != "idempotency_in_progress":
            return None
        return int(self.evidence.get("retry_after_seconds", 1))


def unfit(field: str, rule: str, message: str) -> Problem:
    """One field that breaks a rule which its type cannot say."""
    fault = {"field": field, "rule": rule, "message": message}
    return Problem("validation_failed", f"{field}: {message}", errors=[fault])


def envelope(problem: Problem, request_id: str, public_url: str) -> dict[str, Any]:
    """The body of an error, also of a failed item in a bulk answer."""
    entry = problem.entry
    return {
        "error": problem.message,
        "diagnostic": {
            "id": f"{problem.code}.{request_id}",
            "code": problem.code,
            "severity": entry.severity,
            "category": entry.category,
            "title": entry.title,
            "message": problem.message,
            "suggested_command": None,
            "doc_url": f"{public_url}/docs/errors#{problem.code}",
            "data_freshness": "live",
            "evidence": problem.evidence,
        },
    }


def envelope_bytes(problem: Problem, request_id: str, public_url: str) -> bytes:
    """The envelope as it goes over the wire."""
    return msgspec.json.encode(envelope(problem, request_id, public_url))
