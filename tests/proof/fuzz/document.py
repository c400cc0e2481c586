"""Calls made from openapi.yaml, good and bad: each answer is one that the document describes."""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from tests.client import Client
from tests.factories import Workspace
from tests.proof.access.stages import Stage, staged
from tests.proof.access.table import PLACE, ROWS, Row
from tests.proof.part import Told
from tests.serving import ADMIN_KEY
from tests.world import World

DOCUMENT: Final = Path(__file__).parents[3] / "openapi.yaml"
CHECKS: Final = (
    not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_headers_conformance, checks.response_schema_conformance,
)  # fmt: skip
# What a call would wait for is not waited for here.
AT_ONCE: Final = {"wait": None, "wait_seconds": None, "timeout_seconds": 0}
MODES: Final = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
EXAMPLES: Final = 25


def fuzz(world: World, seed: int, count: int, seconds: float) -> Told:
    """Makes so many calls, or as many as there is time for, endpoint after endpoint in turn."""
    operations = list(_operations())
    random.Random(seed).shuffle(operations)
    told, began = Told(), time.monotonic()
    log = world.server.log.stat().st_size
    own, calls, turn = world.workspace(), 0, 0
    rows = {row.template: row for row in ROWS if "stream" not in row.marks}
    while calls < count and time.monotonic() - began < seconds:
        for operation in operations:
            row = rows.get(PLACE.sub("{}", f"{operation.method.upper()} {operation.path}"))
            if row is None or calls >= count or time.monotonic() - began >= seconds:
                continue
            # What is done to a whole workspace is done to one that nobody else uses.
            alone = "/scheduler/" in row.path or "/workspaces/" in row.path
            place = world.workspace() if alone else own
            probe = Probe(world, place, row, random.Random(f"{seed} {turn} {row.endpoint}"))
            probe.run(operation, MODES[turn % 2], seed + turn)
            calls += probe.calls
            told.breaches += [f"seed {seed}, turn {turn}: {breach}" for breach in probe.breaches]
        world.admin.also(X_Workspace="*").post("/api/scheduler/resume")
        turn += 1
    told.breaches += [f"logged as an error: {line}" for line in world.server.errors(since=log)]
    told.tried = {"calls from the document": calls, "turns over all endpoints": turn}
    return told


def _operations() -> Iterator[Any]:
    # Who calls is said by the probe: bytes have other ways to be nobody.
    config = schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
    schema = schemathesis.openapi.from_path(str(DOCUMENT), config=config)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        yield found.ok()


class Probe:
    """Calls of one endpoint, with things that are there in the places of their ids."""

    def __init__(self, world: World, own: Workspace, row: Row, luck: random.Random) -> None:
        self.world, self.own, self.row, self.luck = world, own, row, luck
        self.stage: Stage = staged(row.stage, own)
        self.calls = 0
        self.breaches: list[str] = []

    def run(self, operation: Any, mode: GenerationMode, seed: int) -> None:
        """Some calls that keep to the document, or some that do not."""

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=EXAMPLES, database=None, deadline=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def calls(case: Any) -> None:
            self._call(case)

        # There is nothing wrong to be said where anything may be said.
        with suppress(hypothesis.errors.Unsatisfiable):
            calls()

    def _call(self, case: Any) -> None:
        ids = self.stage.ids
        for name, kind in zip(
            case.path_parameters or {}, PLACE.findall(self.row.path), strict=True
        ):
            if self.luck.random() < 0.8:
                case.path_parameters[name] = ids[kind]
        if self.luck.random() < 0.9:
            case.query.pop("workspace", None)
        if self.row.endpoint.endswith("/drain") and not isinstance(case.body, dict):
            case.body = {}
        if isinstance(case.body, dict):
            _at_once(case.body)
            if self.row.endpoint.endswith("/drain"):
                case.body["timeout_seconds"] = 0
        headers = self._headers()
        self.calls += 1
        try:
            answer = case.call(base_url=self.world.server.url, headers=headers)
            case.validate_response(answer, checks=list(CHECKS))
        except FailureGroup as group:
            for failure in group.exceptions:
                command = case.as_curl_command(headers=headers)
                self.breaches.append(f"{type(failure).__name__}: {failure} {command}"[:3000])

    def _headers(self) -> dict[str, str]:
        by: Client = Client(self.world.http, ADMIN_KEY, X_Workspace=self.own.id)
        headers = by.sent()
        del headers["Content-Type"]
        if self.row.agents:
            headers |= {"X-Agent-Name": self.stage.agent.headers["X-Agent-Name"]}
            if self.luck.random() < 0.8:
                headers |= {"X-Session-ID": self.stage.agent.session}
        return headers


def _at_once(body: dict[str, Any]) -> None:
    for name, value in body.items():
        if name in AT_ONCE:
            body[name] = AT_ONCE[name]
        elif isinstance(value, dict):
            _at_once(value)
