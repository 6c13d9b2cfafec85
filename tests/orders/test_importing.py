"""A run brought in from a file: stored to be looked at, by whoever may, and acted on by nobody."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from orders.models import Order
from sagas import ActRefused, health, overview, services, tallies
from sagas.audit import audit_runs
from sagas.metrics import engine_samples
from sagas.models import RunEvent, SagaRun, StepRecord
from sagas.selectors import run_view, runs_needing_attention
from tests.factories import make_order, make_shop
from tests.orders.pages import ended, text_of, told, visitor

pytestmark = pytest.mark.django_db(transaction=True)

ADDRESS = "/runs/import/"


@pytest.fixture(autouse=True)
def _shop() -> None:
    make_shop()


def exported(client: Client, order: Order) -> dict[str, Any]:
    """Its run as a file has it, under an id that is not here."""
    found: dict[str, Any] = client.get(f"/runs/{order.run_id}/export/").json()
    found["run"] |= {"id": "01a20a86-0000-7000-8000-000000000000", "business_key": "THEIRS-1"}
    return found


def send(client: Client, content: Any, **more: Any) -> Any:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post(ADDRESS, {"file": SimpleUploadedFile("run.json", body), **more})


def stored() -> tuple[int, int, int]:
    return SagaRun.objects.count(), StepRecord.objects.count(), RunEvent.objects.count()


class TestWhoMay:
    def test_supervisors_are_offered_it_and_nobody_else(self, gina: Client, sam: Client, vera: Client) -> None:
        for client, status in ((sam, 200), (gina, 403), (vera, 403), (visitor("ada"), 404)):
            assert client.get(ADDRESS).status_code == status
            assert send(client, {}).status_code == (400 if status == 200 else status)
        assert ADDRESS in sam.get("/runs/").content.decode()
        assert ADDRESS not in gina.get("/runs/").content.decode()
        assert "takes a supervisor" in text_of(gina.get(ADDRESS))
        assert Client().post(ADDRESS).headers["Location"] == f"/accounts/login/?next={ADDRESS}"

    def test_no_other_site_can_have_it_sent(self, sam: Client) -> None:
        careful = Client(enforce_csrf_checks=True)
        careful.cookies = sam.cookies
        before = stored()

        assert send(careful, exported(sam, ended("completed"))).status_code == 403
        token = careful.get(ADDRESS).cookies["csrftoken"].value
        assert send(careful, {}, csrfmiddlewaretoken=token).status_code == 400
        assert stored()[0] == before[0] + 1


class TestStored:
    def test_it_is_the_run_as_it_was_and_says_where_it_comes_from(self, sam: Client) -> None:
        order = ended("needs_attention")

        answer = send(sam, exported(sam, order))

        run = SagaRun.objects.get(business_key="THEIRS-1")
        assert answer.headers["Location"] == f"/runs/{run.pk}/"
        assert told(answer) == ["The run is stored, to be looked at."]
        page = sam.get(f"/runs/{run.pk}/")
        words = text_of(page)
        assert "Needs attention" in words
        assert "nobody acts on it here." in words
        assert "Read from a file by user:sam" in words
        assert "/orders/THEIRS-1/" not in page.content.decode()  # its order is elsewhere
        assert "Copy as test case" in page.content.decode()
        assert "From a file." in text_of(sam.get("/runs/?key=THEIRS-1"))
        tries = [[row[1:] for row in attempts(pk)] for pk in (run.pk, order.run_id)]
        assert tries[0] == tries[1] != []

    def test_nobody_acts_on_it_and_it_waits_for_nobody(self, sam: Client) -> None:
        order = ended("needs_attention")
        send(sam, exported(sam, order))
        run = SagaRun.objects.get(business_key="THEIRS-1")
        before = stored()
        place: dict[str, Any] = {"step": "process_payment", "direction": "compensation"}
        said: dict[str, Any] = {"actor": "user:sam", "reason": "because"}

        acts: list[Any] = [
            lambda: services.cancel(run_id=run.pk, **said),
            lambda: services.abandon(run_id=run.pk, **said),
            lambda: services.retry(run_id=run.pk, **place, **said),
            lambda: services.skip(run_id=run.pk, **place, **said),
            lambda: services.resolve(run_id=run.pk, **place, **said, evidence="BANK-1"),
            lambda: services.assign(run_id=run.pk, owner="user:sam", actor="user:sam"),
            lambda: services.signal(run_id=run.pk, name="paid", payload={}),
        ]
        for act in acts:
            with pytest.raises(ActRefused, match="read from a file"):
                act()

        view = run_view(run.pk)
        assert (view.can, [step.undo_can for step in view.steps]) == ((), [()] * 4)
        assert "This cannot be done as the run stands now" in text_of(sam.get(f"/runs/{run.pk}/retry/", place))
        run.refresh_from_db()
        assert (run.due_at, run.status, stored()) == (None, "needs_attention", before)
        assert [one.pk for one in runs_needing_attention()] == [order.run_id]
        assert "1 run " in text_of(sam.get("/runs/attention/"))

    def test_nothing_counts_it_as_ours(self, sam: Client) -> None:
        order = ended("needs_attention")
        told_of = exported(sam, order)
        SagaRun.objects.filter(business_key=order.order_id).update(imported_at=order.placed_at)  # and so none is ours
        send(sam, told_of)

        assert SagaRun.objects.count() == 2
        assert overview.waiting() == []
        assert list(audit_runs()) == []
        assert {line.state for line in health.lines(order.placed_at) if line.name == "attention"} == {"ok"}
        assert not [one for one in engine_samples() if one.name.endswith("runs_in_state") and one.value]

    def test_programs_are_told_and_no_metric_counts_what_it_did(
        self, sam: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tallies, "SETTLED", -timedelta(hours=1))
        order = ended("compensated")
        told_of = exported(sam, order)

        def counted() -> dict[tuple[str, str], float]:
            tallies.count_up()
            return {(name, labels): value for name, labels, value in tallies.tallies() if "total" in name}

        before = counted()
        send(sam, told_of)

        assert counted() == before != {}
        api = sam.get(f"/api/v1/saga-runs/{told_of['run']['id']}").json()
        assert (api["imported_at"] is None, api["can"]) == (False, [])
        assert sam.get(f"/api/v1/saga-runs/{order.run_id}").json()["imported_at"] is None

    def test_a_run_that_was_under_way_is_taken_up_by_nobody(self, sam: Client) -> None:
        told_of = exported(sam, make_order())
        told_of["run"] |= {"lease_owner": "worker-7", "lease_until": "2099-01-01T00:00:00Z"}

        send(sam, told_of)

        run = SagaRun.objects.get(business_key="THEIRS-1")
        assert (run.status, run.due_at, run.lease_owner, run.lease_until) == ("pending", None, "", None)

    def test_what_is_exported_again_is_the_same(self, sam: Client) -> None:
        before = exported(sam, ended("compensated"))
        send(sam, before)

        again = sam.get(f"/runs/{before['run']['id']}/export/").json()

        assert again["run"] == {**before["run"], "due_at": None}
        assert [one["kind"] for one in again["events"]] == [one["kind"] for one in before["events"]] + ["imported"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "The file is no JSON"),
        (b"\xff\xfe", "The file is no text in UTF-8"),
        (b"<html>", "The file is no JSON"),
        (b"[" * 100_000, "The file is no JSON"),
        (b'{"format": NaN}', "NaN is no number"),
        (b"[]", "it holds no JSON object"),
        (b"{}", "This is of format None; 1 is what is read here."),
        (b'{"format": 1}', "it has no run as an object"),
        (b'{"format": 1, "run": {"saga": "' + b"x" * 5_300_000 + b'"}}', "The file is larger than 5 MiB."),
    ],
)
def test_what_is_no_export_is_refused_and_nothing_is_stored(sam: Client, content: bytes, words: str) -> None:
    answer = send(sam, content)

    assert answer.status_code == (413 if "larger" in words else 400)
    page = text_of(answer)
    assert "Nothing was stored:" in page
    assert words in page
    assert stored() == (0, 0, 0)


def test_a_file_a_little_too_large_is_refused_too(sam: Client) -> None:
    answer = send(sam, b'{"format": "' + b"x" * (5 * 1024 * 1024) + b'"}')

    assert (answer.status_code, "larger than 5 MiB" in text_of(answer)) == (400, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"saga": "trip"}, "It is of 'trip' version 1, which is not here. There are: order_processing version 1"),
        ({"id": None}, "run: id cannot be None."),
        ({"status": "lost"}, "The database refuses it"),
        ({"ended_at": None}, "The database refuses it"),
    ],
)
def test_a_run_that_cannot_be_is_refused_whole(sam: Client, change: dict[str, Any], words: str) -> None:
    told_of = exported(sam, ended("completed"))
    before = stored()

    answer = send(sam, {**told_of, "run": {**told_of["run"], **change}})

    assert (answer.status_code, words in text_of(answer)) == (400, True), text_of(answer)
    assert stored() == before


def test_one_that_is_here_is_refused(sam: Client) -> None:
    order = ended("completed")
    before = stored()

    answer = send(sam, sam.get(f"/runs/{order.run_id}/export/").json())

    assert f"The run {order.run_id} is here already." in text_of(answer)
    assert stored() == before


def test_without_a_file_one_is_asked_for(sam: Client) -> None:
    assert "Choose a file." in text_of(sam.post(ADDRESS, {}))


def attempts(run_id: Any) -> list[tuple[Any, ...]]:
    return list(
        StepRecord.objects.filter(run=run_id).order_by("id").values_list("run", "step", "number", "outcome", "key")
    )
