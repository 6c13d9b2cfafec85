"""The API against its own OpenAPI document: thousands of requests that fit it, or just do not.

Checked of every answer: it is one the document names, with the headers and the shape that the document gives it;
what does not fit is refused; nothing is a mistake of ours; and afterwards the books still add up.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation

from orders.api_keys import create_key
from orders.models import IdempotentRequest, Order, User
from orders.services import cancel_order
from orders.webhooks import endpoints
from sagas.models import RunEvent, SagaRun
from sagas.operations import Target, begin
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.api_client import make_caller

EXAMPLES = 30
"""For each operation. Operations of which the slowest takes 15 ms a request."""

# The document cannot say which SKUs there are, which totals fit, or what state a run is in.
NOT_CHECKED = ["positive_data_acceptance"]

load_all_checks()
config = SchemathesisConfig.from_dict({"generation": {"max-examples": EXAMPLES, "deterministic": True}})
# Listened to only over ASGI, and signed by a provider: nobody makes either up.
document = schemathesis.openapi.from_wsgi("/api/v1/schema", get_wsgi_application(), config=config).exclude(
    path_regex="/stream$|/provider-callbacks/"
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # A request that is refused is logged; thousands of them would bury what matters.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Prefer: wait` is taken and does not wait: there is no worker to wait for."""
    monkeypatch.setattr("orders.api.LONGEST_WAIT", 0)


@pytest.fixture
def supervisor_headers() -> dict[str, str]:
    """Of a caller who may do everything, so that nothing is hidden behind a 403."""
    return make_caller(make_user(username="supervisor", role="supervisor")).headers


@pytest.fixture
def known(supervisor_headers: dict[str, str]) -> dict[str, str]:
    """What is there to be found: an order being cancelled, and a run whose refund failed for good."""
    make_shop()
    stuck = make_order(order_id="ORD-124", card_token="tok_refund_fails", ship_postcode="00000")
    run = SagaRun.objects.get(business_key=stuck.order_id)
    assert run_to_end(run).status == "needs_attention"
    cancelled = make_order(order_id="ORD-125")
    cancel_order(order_id=cancelled.order_id, actor="customer:ada", reason="changed my mind")
    event = RunEvent.objects.get(run=cancelled.run_id, kind="cancel_requested")
    target = Target(run_id=run.pk)
    operation = begin(act="assign", targets=[target], about="one", actor="user:supervisor", reason="because")
    supervisor = User.objects.get(username="supervisor")
    key, _ = create_key(user=supervisor, name="to be revoked")
    endpoint = endpoints.create(user=supervisor, url="https://1.1.1.1/hooks")
    return {
        "order_id": cancelled.order_id,
        "cancellation_id": str(event.pk),
        "run_id": str(run.pk),
        "operation_id": str(operation.pk),
        "step": "process_payment",
        "name": "order_processing",
        "sku": "ITEM-001",
        "key_id": str(key.pk),
        "endpoint_id": str(endpoint.pk),
        "delivery_id": str(endpoints.send_test(endpoint).pk),
    }


@pytest.fixture
def answers() -> Iterator[set[int]]:
    """The statuses an operation has answered with: in the end it did what it is for, and refused too."""
    found: set[int] = set()
    yield found
    assert found & {200, 201, 202, 204}, found
    assert found & {400, 401, 404, 405}, found


@document.parametrize()
@settings(suppress_health_check=list(HealthCheck), max_examples=EXAMPLES, derandomize=True, database=None)
def test_every_answer_is_one_that_the_document_promises(
    case: Any, known: dict[str, str], supervisor_headers: dict[str, str], answers: set[int]
) -> None:
    find_something(case, known)

    response = case.call_and_validate(
        headers=supervisor_headers, excluded_checks=[CHECKS.get_one(name) for name in NOT_CHECKED]
    )

    answers.add(response.status_code)
    assert not Order.objects.filter(run_id__isnull=True).exists()
    assert not Order.objects.filter(lines__isnull=True).exists()
    assert not IdempotentRequest.objects.filter(answered_at__isnull=True).exists()


def find_something(case: Any, known: dict[str, str]) -> None:
    """Turn half of the made-up places and versions into real ones, and orders into orders of something that there is.

    Behind a 404, and behind an unknown SKU, there is little to find. What was made not to fit stays as it is.
    """
    fits = {place: not case.meta.is_negative_at(place) for place in (ParameterLocation.PATH, ParameterLocation.BODY)}
    if fits[ParameterLocation.PATH] and zlib.crc32(repr(case.path_parameters).encode()) % 2:
        case.path_parameters.update({name: known[name] for name in case.path_parameters})
    if case.headers and "If-Match" in case.headers and zlib.crc32(repr(case.body).encode()) % 2:
        case.headers["If-Match"] = "*"
    if not fits[ParameterLocation.BODY] or not isinstance(case.body, dict):
        return
    if "url" in case.body:
        case.body["url"] = "https://1.1.1.1/hooks"
    if "tags" in case.body:
        case.body.pop("owner", None)  # the order does not wait for a person
    if "items" in case.body:
        for item, sku in zip(case.body["items"], ["ITEM-001", "ITEM-002"] * 50, strict=False):
            item["sku"] = sku
        case.body.pop("total_amount", None)
        case.body.pop("currency", None)
    elif "step" in case.body:
        case.body |= {"step": "process_payment", "direction": "compensation"}
