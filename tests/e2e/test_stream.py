"""An order's events as they happen, from a server that speaks ASGI, to a client that is cut off and comes again."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from django.test import Client

from orders.api_keys import create_key
from orders.models import Scope
from orders.services import cancel_order
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user
from tests.orders.pages import run_of, visitor
from tests.processes import Site, wait_for

pytestmark = [pytest.mark.processes, pytest.mark.django_db(transaction=True)]


class Listener:
    """Reads events one by one, as a browser's EventSource does."""

    def __init__(self, site: Site, path: str, **headers: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
        self.connection.request("GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        self.response = self.connection.getresponse()
        self.status, self.kind = self.response.status, self.response.headers["Content-Type"]

    def next(self) -> tuple[str, str, Any]:
        """(event, id, data) of the next event."""
        fields: dict[str, str] = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if line:
                name, _, text = line.partition(": ")
                fields[name] = text
            elif "event" in fields:
                return fields["event"], fields.get("id", ""), json.loads(fields["data"])
            else:
                fields = {}

    def close(self) -> None:
        self.connection.close()


def start_asgi(site: Site) -> None:
    web = site.start(
        "asgi",
        *("-m", "granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(site.port)),
        *("--no-ws", "config.asgi:application"),
    )
    wait_for("the ASGI server", lambda: not web.is_running() or site._answers())
    assert web.is_running(), web.output()


def test_events_come_as_they_happen_and_go_on_where_one_was_cut_off(site: Site) -> None:
    make_shop()
    ada, eve = make_user(username="ada"), make_user(username="eve")
    (_, token), (_, others), (_, writer) = (
        create_key(user=user, name=f"{user.username} {n}", scopes=scopes)
        for n, (user, scopes) in enumerate([(ada, tuple(Scope)), (eve, tuple(Scope)), (ada, (Scope.ORDERS_WRITE,))])
    )
    order = make_order(user=ada)
    path = f"/api/v1/orders/{order.order_id}/stream"
    start_asgi(site)

    listener = Listener(site, path, Authorization=f"Bearer {token}")
    first = listener.next()
    run_to_end(run_of(order))
    second = listener.next()
    last = listener.next()
    listener.close()

    assert (listener.status, listener.kind) == (200, "text/event-stream")
    assert [first[0], second[0], last] == ["started", "completed", ("end", "", {"state": "completed"})]
    assert int(first[1]) < int(second[1]) == second[2]["sequence"]

    cancel_order(order_id=order.order_id, actor="customer:ada", reason="changed my mind")
    again = Listener(site, path, Authorization=f"Bearer {token}", Last_Event_ID=second[1])
    asked = again.next()
    run_to_end(run_of(order))
    kinds = [again.next()[0] for _ in range(2)]
    again.close()
    assert (asked[0], kinds) == ("cancel_requested", ["compensated", "end"])

    for headers, status, code in (
        ({}, 401, "unauthenticated"),
        ({"Authorization": f"Bearer {others}"}, 404, "not-found"),
        ({"Authorization": f"Bearer {writer}"}, 403, "scope-missing"),
        ({"Authorization": "Bearer osk_x"}, 401, "unauthenticated"),
        ({"Authorization": f"Bearer {token}", "Last_Event_ID": "-1"}, 400, "validation-error"),
    ):
        refused = Listener(site, path, **headers)
        assert (refused.status, json.loads(refused.response.read())["code"]) == (status, code)
        refused.close()


def test_a_server_of_the_other_kind_says_so() -> None:
    make_shop()
    make_order()
    gina = visitor("gina", "agent")

    response = gina.get("/api/v1/orders/ORD-123/stream")

    assert (response.status_code, response.json()["code"]) == (406, "not-acceptable")
    assert "Ask /events from time to time instead." in response.json()["detail"]
    assert Client().get("/api/v1/orders/ORD-123/stream").status_code == 401
    wrong = gina.post("/api/v1/orders/ORD-123/stream")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["Allow"]) == (405, "method-not-allowed", "GET")
