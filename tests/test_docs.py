"""The page of errors: what an error points to can be read there."""

from urllib.parse import urlsplit

import httpx2

from server.codes import CODES
from server.remedies import REMEDIES
from server.rules.inspect import FINDINGS
from tests.client import RefusedError
from tests.factories import Workspace
from tests.world import World


def test_the_page_of_errors_has_every_code_under_its_anchor(world: World) -> None:
    answer = httpx2.get(f"{world.server.url}/docs/errors", trust_env=False)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for name, code in CODES.items():
        assert answer.text.count(f'id="{name}"') == 1
        assert code.title in answer.text


def test_each_error_and_each_finding_has_its_remedy() -> None:
    assert set(REMEDIES) == {*CODES, *FINDINGS}


def test_the_address_that_an_error_names_leads_to_its_explanation(workspace: Workspace) -> None:
    try:
        workspace.operator.get("/api/tasks/nobody")
    except RefusedError as refusal:
        told = refusal.envelope.diagnostic
    address = urlsplit(told.doc_url)
    page = httpx2.get(f"{workspace.world.server.url}{address.path}", trust_env=False)
    assert page.status_code == 200
    assert address.fragment == "task_not_found"
    assert f'<section id="{address.fragment}">' in page.text
