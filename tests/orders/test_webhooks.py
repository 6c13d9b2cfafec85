"""Webhooks: of everything that happened and nothing else, signed, tried again, never sent into our own network."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone
from django_q.models import OrmQ

from orders.models import Order, User, WebhookDelivery, WebhookEndpoint, WebhookEvent
from orders.services import cancel_order, place_order
from orders.webhooks import endpoints, sending
from orders.webhooks.delivery import DELIVER, LEASE, WAITS, deliver_due, is_waiting, spread
from sagas import queue
from sagas.testing import run_to_end
from tests.factories import make_order, make_shop, make_user, order_fields
from tests.orders.api_client import Caller, faults, make_caller, problem
from tests.orders.pages import ENDS, run_of

pytestmark = pytest.mark.django_db(transaction=True)

HOOKS = "/api/v1/webhook-endpoints"
DELIVERIES = "/api/v1/webhook-deliveries"
PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")


class Receiver:
    """Somebody's server. Answers with `codes`, one after another, the last one for ever; keeps what it was sent."""

    def __init__(self) -> None:
        self.codes = [204]
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
                code = receiver.codes.pop(0) if len(receiver.codes) > 1 else receiver.codes[0]
                self.send_response(code)
                if code == 302:
                    self.send_header("Location", receiver.url + "elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def told(self) -> list[tuple[str, str]]:
        """(type, state), in the order in which they came."""
        bodies = [json.loads(body) for _, body in self.got]
        return [(body["type"], body["data"].get("state", "")) for body in bodies]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def ada(settings: Any) -> User:
    settings.WEBHOOKS_LOCAL = True
    make_shop()
    return make_user(username="ada")


def endpoint_of(user: User, receiver: Receiver, **changes: Any) -> WebhookEndpoint:
    return endpoints.create(user=user, url=receiver.url, **changes)


def order_of(user: User, number: str = "ORD-1", **changes: Any) -> Order:
    return make_order(
        user=user, order_id=number, items=[{"sku": "ITEM-001", "quantity": 1}], total_amount=None, **changes
    )


def deliver_all() -> int:
    """Also what is due only later."""
    sent = deliver_due()
    while WebhookDelivery.objects.filter(status="pending").update(next_at=timezone.now()):
        sent += deliver_due()
    return sent


class TestWhatIsTold:
    def test_an_order_that_goes_well(self, ada: User, receiver: Receiver) -> None:
        endpoint_of(ada, receiver)

        run_to_end(run_of(order_of(ada)))
        deliver_due()

        types = sorted(type_ for type_, _ in receiver.told())
        assert types == ["order.completed", "order.created", *["order.step.completed"] * 4]
        last = json.loads(max(receiver.got, key=lambda one: json.loads(one[1])["data"]["sequence"])[1])
        assert last["data"] == {
            "order_id": "ORD-1",
            "state": "completed",
            "step": None,
            "sequence": WebhookEvent.objects.get(type="order.completed").pk,
            "url": "http://testserver/api/v1/orders/ORD-1",
        }

    def test_one_that_turns_back(self, ada: User, receiver: Receiver) -> None:
        endpoint_of(ada, receiver)

        run_to_end(run_of(order_of(ada, **ENDS["compensated"])))

        told = list(WebhookEvent.objects.order_by("id").values_list("type", "step"))
        assert told == [
            ("order.created", ""),
            ("order.step.completed", "reserve_inventory"),
            ("order.step.completed", "process_payment"),
            ("order.step.failed", "create_shipment"),
            ("order.compensating", ""),
            ("refund.completed", ""),
            ("order.compensated", ""),
        ]

    def test_one_whose_refund_fails(self, ada: User, receiver: Receiver) -> None:
        endpoint_of(ada, receiver, events=["order.needs_attention", "refund.failed", "refund.completed"])

        run_to_end(run_of(order_of(ada, **ENDS["needs_attention"])))
        deliver_due()

        assert sorted(receiver.told()) == [
            ("order.needs_attention", "needs_attention"),
            ("refund.failed", "needs_attention"),
        ]

    def test_one_that_is_cancelled_after_all(self, ada: User, receiver: Receiver) -> None:
        order = order_of(ada)
        run_to_end(run_of(order))
        endpoint_of(ada, receiver)

        cancel_order(order_id=order.order_id, actor="customer:ada", reason="changed my mind")

        assert list(WebhookEvent.objects.values_list("type", "state")) == [("order.compensating", "compensating")]

    def test_what_was_rolled_back_is_not_told(self, ada: User, receiver: Receiver) -> None:
        endpoint_of(ada, receiver)

        with transaction.atomic():
            place_order(**{**order_fields(), "user": ada})
            assert WebhookEvent.objects.count() == 1
            transaction.set_rollback(True)

        assert (WebhookEvent.objects.count(), deliver_due()) == (0, 0)

    def test_nobody_is_told_of_others_orders_and_staff_of_all(self, ada: User, receiver: Receiver) -> None:
        eve, gina = make_user(username="eve"), make_user(username="gina", role="agent")
        for user in (eve, gina):
            endpoint_of(user, receiver, events=["order.created"])

        order_of(ada)
        deliver_due()

        assert [one.endpoint.user.username for one in WebhookDelivery.objects.all()] == ["gina"]
        assert receiver.told() == [("order.created", "pending")]

    def test_without_an_endpoint_nothing_is_stored(self, ada: User) -> None:
        run_to_end(run_of(order_of(ada)))

        assert not WebhookEvent.objects.exists()

    def test_what_was_before_an_endpoint_is_not_told(self, ada: User, receiver: Receiver) -> None:
        first = endpoint_of(ada, receiver)
        order_of(ada)
        second = endpoint_of(ada, receiver)

        spread()

        assert [one.endpoint for one in WebhookDelivery.objects.all()] == [first]
        assert second.deliveries.count() == 0


class TestSignature:
    def is_genuine(self) -> Any:
        """The function that the documentation shows."""
        (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
        space: dict[str, Any] = {}
        exec(code, space)  # noqa: S102  (ours: docs/webhooks.md)
        return space["is_genuine"]

    def test_the_documented_check_takes_ours_and_nothing_else(self, ada: User, receiver: Receiver) -> None:
        endpoint = endpoint_of(ada, receiver, events=["order.created"])
        order_of(ada)
        deliver_due()
        ((headers, body),) = receiver.got

        check = self.is_genuine()

        assert check(endpoint.secret, headers, body)
        assert not check(endpoint.secret, headers, body + b" ")
        assert not check(endpoint.secret, {**headers, "webhook-id": "msg_other"}, body)
        assert not check("whsec_" + "A" * 43 + "=", headers, body)
        assert not check(endpoint.secret, {**headers, "webhook-timestamp": str(int(time.time()) - 301)}, body)
        assert headers["webhook-id"] == f"msg_{WebhookEvent.objects.get().message_id.hex}"

    def test_after_a_rotation_both_secrets_sign_for_a_day(self, ada: User, receiver: Receiver) -> None:
        endpoint = endpoint_of(ada, receiver)
        old = endpoint.secret

        endpoints.rotate(endpoint)
        endpoints.send_test(endpoint)
        deliver_due()
        WebhookEndpoint.objects.update(old_secret_until=timezone.now() - timedelta(seconds=1))
        endpoints.send_test(endpoint)
        deliver_due()

        check, (first, second) = self.is_genuine(), receiver.got
        assert endpoint.secret != old
        assert [check(secret, *first) for secret in (old, endpoint.secret)] == [True, True]
        assert [check(secret, *second) for secret in (old, endpoint.secret)] == [False, True]


class TestTries:
    def sent_one(self, ada: User, receiver: Receiver) -> WebhookDelivery:
        return endpoints.send_test(endpoint_of(ada, receiver))

    def test_what_fails_is_tried_again_later_under_the_same_id(self, ada: User, receiver: Receiver) -> None:
        receiver.codes = [500, 204]
        delivery = self.sent_one(ada, receiver)

        before = timezone.now()
        assert deliver_due() == 1

        delivery.refresh_from_db()
        assert (delivery.status, delivery.attempts, delivery.last_code) == ("pending", 1, 500)
        assert delivery.next_at is not None
        assert before + WAITS[0] <= delivery.next_at <= timezone.now() + WAITS[0]
        assert deliver_due() == 0
        deliver_all()
        delivery.refresh_from_db()
        assert (delivery.status, delivery.attempts, delivery.last_error) == ("delivered", 2, "")
        first, second = receiver.got
        assert first[0]["webhook-id"] == second[0]["webhook-id"]

    def test_in_the_end_it_is_given_up_and_can_be_sent_again(self, ada: User, receiver: Receiver) -> None:
        receiver.codes = [503]
        delivery = self.sent_one(ada, receiver)

        assert deliver_all() == len(WAITS) + 1 == 10

        delivery.refresh_from_db()
        assert (delivery.status, delivery.attempts, delivery.next_at) == ("failed", 10, None)
        receiver.codes = [200]
        endpoints.redeliver(delivery)
        deliver_due()
        delivery.refresh_from_db()
        assert delivery.status == "delivered"

    def test_410_switches_the_endpoint_off(self, ada: User, receiver: Receiver) -> None:
        receiver.codes = [410]
        delivery = self.sent_one(ada, receiver)

        deliver_due()

        delivery.refresh_from_db()
        endpoint = WebhookEndpoint.objects.get()
        assert (delivery.status, endpoint.is_active) == ("failed", False)
        assert endpoint.disabled_reason == "It answered 410: it wants no more."
        order_of(ada)
        assert deliver_due() == 0

    def test_a_redirect_is_not_followed(self, ada: User, receiver: Receiver) -> None:
        receiver.codes = [302]
        delivery = self.sent_one(ada, receiver)

        deliver_due()

        delivery.refresh_from_db()
        assert (delivery.status, delivery.last_code, len(receiver.got)) == ("pending", 302, 1)

    def test_nobody_there(self, ada: User, receiver: Receiver) -> None:
        delivery = self.sent_one(ada, receiver)
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            WebhookEndpoint.objects.update(url=f"http://127.0.0.1:{closed.getsockname()[1]}/")

        deliver_due()

        delivery.refresh_from_db()
        assert (delivery.last_code, delivery.last_error.partition(":")[0]) == (None, "ConnectionRefusedError")

    def test_one_that_answers_a_byte_now_and_then_is_cut_off(self, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sending, "TIMEOUT", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as server:
            stop = threading.Event()

            def drip() -> None:
                peer, _ = server.accept()
                with peer:
                    while not stop.wait(0.1):
                        try:
                            peer.sendall(b"H")
                        except OSError:
                            return

            thread = threading.Thread(target=drip)
            thread.start()
            began = time.monotonic()

            answer = sending.send(f"http://127.0.0.1:{server.getsockname()[1]}/", b"{}", {})

            stop.set()
            thread.join()
        assert answer.code is None
        assert time.monotonic() - began < 5

    def test_what_a_dead_worker_had_is_sent_by_another_after_a_while(self, ada: User, receiver: Receiver) -> None:
        self.sent_one(ada, receiver)
        held = WebhookDelivery.objects.all()
        held.update(taken_until=timezone.now() + LEASE)

        assert (is_waiting(), deliver_due()) == (False, 0)
        held.update(taken_until=timezone.now() - timedelta(seconds=1))

        assert (is_waiting(), deliver_due()) == (True, 1)

    def test_the_sweep_rings_for_what_is_to_be_sent(self, ada: User, receiver: Receiver) -> None:
        endpoint_of(ada, receiver)
        order_of(ada)
        OrmQ.objects.all().delete()

        queue.sweep()
        queue.sweep()

        assert [waiting.task["func"] for waiting in OrmQ.objects.all()].count(DELIVER) == 1
        deliver_due()
        OrmQ.objects.all().delete()
        queue.sweep()
        assert DELIVER not in [waiting.task["func"] for waiting in OrmQ.objects.all()]


class TestWhere:
    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://shop.example/", "does not begin with https://"),
            ("https://127.0.0.1/", "127.0.0.1, which is not in the public network"),
            ("https://localhost/", "which is not in the public network"),
            ("https://10.1.2.3/", "which is not in the public network"),
            ("https://192.168.0.1:8443/x", "which is not in the public network"),
            ("https://169.254.169.254/latest/meta-data", "which is not in the public network"),
            ("https://[::1]/", "which is not in the public network"),
            ("https://[fd00::1]/", "which is not in the public network"),
            ("https://[::ffff:10.0.0.1]/", "which is not in the public network"),
            ("https://[2002:0a00:0001::]/", "which is not in the public network"),
            ("https://0.0.0.0/", "which is not in the public network"),
            ("https://224.0.0.1/", "which is not in the public network"),
            ("https://ada:secret@1.1.1.1/", "holds a name or a password"),
            ("https://no-such-host.invalid/", "There is no host no-such-host.invalid."),
            ("https://1.1.1.1:99999/", "no port that there is"),
            ("https://[1.1.1.1", "is not an address"),
            ("file:///etc/passwd", "does not begin with https://"),
            ("https://", "is not an address like"),
        ],
    )
    def test_never_there(self, ada: User, settings: Any, url: str, words: str) -> None:
        settings.WEBHOOKS_LOCAL = False
        caller = make_caller(ada)

        response = caller.post(HOOKS, {"url": url})

        assert faults(response) == [("/url", "bad_address")]
        assert words in response.json()["detail"]
        assert not WebhookEndpoint.objects.exists()

    def test_public_ones_are_fine(self, settings: Any) -> None:
        settings.WEBHOOKS_LOCAL = False

        for url in ("https://1.1.1.1/hooks", "https://[2606:4700:4700::1111]:8443/"):
            sending.check_url(url)

    def test_it_is_checked_again_at_every_try(self, ada: User, receiver: Receiver, settings: Any) -> None:
        """A name that pointed outside when it was registered, and points inside now."""
        delivery = endpoints.send_test(endpoint_of(ada, receiver))
        settings.WEBHOOKS_LOCAL = False

        deliver_due()

        delivery.refresh_from_db()
        assert receiver.got == []
        assert delivery.last_error.startswith("BadAddress: ")


class TestApi:
    @pytest.fixture
    def caller(self, ada: User) -> Caller:
        return make_caller(ada)

    def sent(self, caller: Caller, method: str, path: str, body: Any = None) -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        return caller.client.generic(method, path, content, content_type="application/json", headers=caller.headers)

    def test_made_changed_and_deleted(self, caller: Caller, receiver: Receiver) -> None:
        made = caller.post(HOOKS, {"url": receiver.url, "events": ["order.created"]})

        assert made.status_code == 201
        assert made.json()["secret"].startswith("whsec_")
        path = made.headers["Location"]
        assert "secret" not in caller.get(path).json()
        assert caller.get(HOOKS).json()["results"] == [caller.get(path).json()]
        changed = self.sent(caller, "PATCH", path, {"events": [], "is_active": False})
        assert (changed.json()["events"], changed.json()["is_active"]) == ([], False)
        refused = problem(caller.post(f"{path}/test-deliveries", {}), 409, "state-conflict")
        assert (refused["state"], refused["possible"]) == ("switched_off", ["switch it on"])
        assert "is switched off. Switched off by its owner. Switch it on first." in refused["detail"]
        assert self.sent(caller, "DELETE", path).status_code == 204
        problem(caller.get(path), 404, "not-found")
        assert WebhookEndpoint.objects.count() == 1  # for what was sent to it

    def test_tested_listed_and_sent_again(self, caller: Caller, receiver: Receiver) -> None:
        path = caller.post(HOOKS, {"url": receiver.url}).headers["Location"]

        begun = caller.post(f"{path}/test-deliveries", {})
        deliver_due()

        assert (begun.status_code, begun.json()["type"]) == (202, "webhook.test")
        (listed,) = caller.get(DELIVERIES, {"status": "delivered"}).json()["results"]
        assert (listed["last_code"], listed["attempts"], listed["order_id"]) == (204, 1, "")
        assert caller.get(DELIVERIES, {"status": "failed"}).json()["results"] == []
        again = caller.post(f"{DELIVERIES}/{listed['id']}/redeliveries", {})
        deliver_due()
        assert again.status_code == 202
        assert [headers["webhook-id"] for headers, _ in receiver.got] == [listed["message_id"]] * 2

    def test_nothing_is_promised_to_one_that_is_switched_off(self, caller: Caller, receiver: Receiver) -> None:
        path = caller.post(HOOKS, {"url": receiver.url}).headers["Location"]
        number = caller.post(f"{path}/test-deliveries", {}).json()["id"]
        deliver_due()
        self.sent(caller, "PATCH", path, {"is_active": False})

        refused = problem(caller.post(f"{DELIVERIES}/{number}/redeliveries", {}), 409, "state-conflict")

        assert refused["state"] == "switched_off"
        assert WebhookDelivery.objects.get().status == "delivered"

    def test_rotation_shows_the_new_secret_once(self, caller: Caller, receiver: Receiver) -> None:
        made = caller.post(HOOKS, {"url": receiver.url})

        rotated = caller.post(f"{made.headers['Location']}/secret-rotations", {})

        assert rotated.status_code == 201
        assert rotated.json()["secret"] not in ("", made.json()["secret"])
        assert rotated.json()["old_secret_until"] is not None

    def test_others_are_not_there(self, caller: Caller, receiver: Receiver) -> None:
        path = caller.post(HOOKS, {"url": receiver.url}).headers["Location"]
        caller.post(f"{path}/test-deliveries", {})
        eve = make_caller(make_user(username="eve"))

        for method, place in (
            ("GET", path),
            ("DELETE", path),
            ("POST", f"{path}/secret-rotations"),
            ("POST", f"{path}/test-deliveries"),
            ("POST", f"{DELIVERIES}/{WebhookDelivery.objects.get().pk}/redeliveries"),
        ):
            problem(self.sent(eve, method, place), 404, "not-found")
        assert eve.get(DELIVERIES).json()["results"] == eve.get(HOOKS).json()["results"] == []

    def test_endpoints_come_page_by_page(self, caller: Caller, receiver: Receiver) -> None:
        made = [caller.post(HOOKS, {"url": receiver.url}).json()["id"] for _ in range(3)]

        first = caller.get(HOOKS, {"limit": 2}).json()
        second = caller.get(first["next"]).json()

        assert [one["id"] for page in (first, second) for one in page["results"]] == made[::-1]
        assert second["next"] is None
        assert faults(caller.get(HOOKS, {"active": "1"})) == [("?active", "unknown_field")]

    def test_an_event_that_there_is_not(self, caller: Caller, receiver: Receiver) -> None:
        response = caller.post(HOOKS, {"url": receiver.url, "events": ["order.lost"]})

        assert problem(response, 400, "validation-error")["errors"][0]["pointer"] == "/events/0"
        assert not WebhookEndpoint.objects.exists()

    def test_there_is_an_end_to_endpoints(self, caller: Caller, ada: User, receiver: Receiver) -> None:
        for _ in range(endpoints.MOST_ENDPOINTS):
            endpoint_of(ada, receiver)

        assert faults(caller.post(HOOKS, {"url": receiver.url})) == [("/url", "too_many")]


class TestCommand:
    def test_listed_tested_and_sent_again(
        self, ada: User, receiver: Receiver, capsys: pytest.CaptureFixture[str]
    ) -> None:
        endpoint = endpoint_of(ada, receiver)
        call_command("webhooks", "send-test", str(endpoint.pk))
        deliver_due()
        capsys.readouterr()

        call_command("webhooks", "list", "--status", "delivered")
        listed = capsys.readouterr().out
        call_command("webhooks", "list", "--since", "1h", "--output", "json")
        (told,) = json.loads(capsys.readouterr().out)
        call_command("webhooks", "list", "--output", "jsonl")
        assert json.loads(capsys.readouterr().out) == told
        call_command("webhooks", "resend", str(told["id"]), "--dry-run")
        dry = capsys.readouterr().out
        deliver_due()
        assert len(receiver.got) == 1
        call_command("webhooks", "resend", str(told["id"]))
        deliver_due()

        heading, row = listed.splitlines()
        assert heading.split() == ["ID", "STATUS", "TRIES", "ANSWER", "TYPE", "ORDER", "AT", "URL"]
        assert row.split()[1:5] == ["delivered", "1", "204", "webhook.test"]
        assert (told["status"], told["answer"], told["url"]) == ("delivered", 204, receiver.url)
        assert dry.startswith(f"Would send {told['id']} again: ")
        assert len(receiver.got) == 2

    def test_nothing_is_nothing(self, ada: User, capsys: pytest.CaptureFixture[str]) -> None:
        call_command("webhooks", "list")
        assert capsys.readouterr() == ("", "No delivery fits.\n")
        call_command("webhooks", "list", "--output", "json")
        assert capsys.readouterr().out == "[]\n"
        with pytest.raises(CommandError, match="no stretch of time"):
            call_command("webhooks", "list", "--since", "yesterday")

    def test_what_is_not_there(self, ada: User) -> None:
        for words, said in (
            (["resend", "7"], "There is no delivery 7."),
            (["resend"], "Name deliveries by number"),
            (["send-test", "7"], "There is no endpoint 7."),
        ):
            with pytest.raises(CommandError, match=said):
                call_command("webhooks", *words)

    def test_one_that_is_switched_off(self, ada: User, receiver: Receiver) -> None:
        endpoint = endpoint_of(ada, receiver)
        delivery = endpoints.send_test(endpoint)
        endpoints.change(endpoint, active=False)

        for words in (["send-test", str(endpoint.pk)], ["resend", str(delivery.pk)]):
            with pytest.raises(CommandError, match="is switched off"):
                call_command("webhooks", *words)

    @pytest.mark.parametrize(
        ("words", "way_out"),
        [(["--since", "2h"], "--failed-of ENDPOINT"), (["7", "--since", "2h"], "--failed-of ENDPOINT"),
         (["7", "--failed-of", "1"], "not both")],
    )  # fmt: skip
    def test_nothing_that_was_said_is_passed_over(self, words: list[str], way_out: str) -> None:
        with pytest.raises(CommandError, match=way_out):
            call_command("webhooks", "resend", *words)
