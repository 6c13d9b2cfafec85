"""The inbox in a real browser, while runs come to need a person and leave: what changes by itself, and what never."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection
from playwright.sync_api import Browser, Page, expect

from sagas.models import SagaRun
from sagas.services import assign, retry
from sagas.testing import run_to_end
from tests.e2e.test_browser import assert_not_reloaded, findings, log_in, mark, placed
from tests.processes import Site

pytestmark = [pytest.mark.browser, pytest.mark.processes]

REFUND, MAIL = "refund_keeps_failing", "mail_bounces"


def stuck(order_id: str, scenario: str = REFUND) -> SagaRun:
    """One more run that needs a person, of one cause or another. Nothing but this takes work here."""
    run = SagaRun.objects.get(business_key=placed(scenario, order_id).order_id)
    assert driven(run) == "needs_attention"
    return run


def driven(run: SagaRun) -> str:
    """How the run stands once there is nothing left to do. In a thread: Playwright's loop has this one."""

    def drive() -> str:
        try:
            return run_to_end(run).status
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(drive).result()


def leave(run: SagaRun) -> None:
    """Retried, it needs nobody, for now."""
    retry(run_id=run.pk, step="process_payment", direction="compensation", actor="user:agent")


def expect_runs(page: Page, order_ids: list[str]) -> None:
    """In whichever order: how long they waited is drawn by chance."""
    expect(page.locator("a.id")).to_have_count(len(order_ids))
    assert sorted(page.locator("a.id").all_text_contents()) == order_ids


def looks(page: Page) -> list[str]:
    """Collects the addresses of the looks that the page takes."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url) if "x-live" in request.headers else None)
    return found


@pytest.fixture
def inbox(shop: Site, page: Page) -> Page:
    """An agent's inbox with one run in it, its clock in the test's hands, the pointer nowhere."""
    stuck("ORD-1")
    log_in(page, shop, "agent")
    page.clock.install()
    page.goto(f"{shop.url}/runs/attention/")
    mark(page)
    expect_runs(page, ["ORD-1"])
    return page


def test_a_group_comes_and_goes_with_its_runs(inbox: Page) -> None:
    headings, badge = inbox.get_by_role("heading", level=2), inbox.locator("[data-attention]")
    expect(headings).to_have_text(["Refund payment: unavailable from sandbox gateway"])
    expect(badge).to_have_text("1")

    mailed = stuck("ORD-2", MAIL)
    inbox.clock.run_for(10_500)

    expect(headings).to_have_count(2)
    expect_runs(inbox, ["ORD-1", "ORD-2"])
    expect(badge).to_have_text("2")
    expect(inbox).to_have_title("2 need attention, Order saga")
    expect(inbox.locator("#live-region")).to_have_text("2 need attention")

    leave(SagaRun.objects.get(business_key="ORD-1"))
    inbox.clock.run_for(10_500)

    expect_runs(inbox, ["ORD-2"])
    expect(headings).to_have_count(1)
    expect(badge).to_have_text("1")

    SagaRun.objects.filter(pk=mailed.pk).update(status="running", attention_reason="")
    inbox.clock.run_for(10_500)

    expect(inbox.get_by_text("Nothing needs you.")).to_be_visible()
    expect(badge).to_be_hidden()
    assert_not_reloaded(inbox)


def test_asking_for_a_retry_takes_nothing_away_that_still_waits(inbox: Page) -> None:
    run = stuck("ORD-2", MAIL)
    retry(run_id=run.pk, step="send_confirmation_email", direction="action", actor="user:agent")
    assert driven(run) == "needs_attention"  # tried again, and refused again

    inbox.clock.run_for(10_500)

    expect_runs(inbox, ["ORD-1", "ORD-2"])
    expect(inbox.get_by_role("row", name="ORD-2").locator("td[data-label=Tries]")).to_have_text("2")
    assert_not_reloaded(inbox)


def test_what_is_folded_chosen_and_stood_on_stays(inbox: Page) -> None:
    run = SagaRun.objects.get()
    rest = inbox.get_by_label("How long to put ORD-1 off")
    rest.select_option("week")
    take = inbox.get_by_role("button", name="Take on ORD-1")
    take.focus()

    assign(run_id=run.pk, owner="user:sam", actor="user:sam")
    inbox.clock.run_for(10_500)

    expect(inbox.locator("td[data-label='Looked after by']")).to_have_text("sam")
    expect(take).to_be_focused()
    expect(rest).to_have_value("week")

    fold = inbox.locator("main details")
    fold.evaluate("fold => { fold.open = false; }")
    assign(run_id=run.pk, owner="user:sue", actor="user:sue")
    inbox.clock.run_for(10_500)

    expect(inbox.locator("td[data-label='Looked after by']")).to_have_text("sue")
    expect(fold).not_to_have_attribute("open", "")
    assert_not_reloaded(inbox)


def test_whoever_is_choosing_is_left_alone(inbox: Page) -> None:
    inbox.get_by_label("How long to put ORD-1 off").focus()

    assign(run_id=SagaRun.objects.get().pk, owner="user:sam", actor="user:sam")
    with inbox.expect_response("**/runs/attention/"):
        inbox.clock.run_for(10_500)
    expect(inbox.locator("td[data-label='Looked after by']")).to_have_text("nobody")

    inbox.get_by_role("heading", level=1).click()
    inbox.locator("main").focus()
    inbox.clock.run_for(10_500)
    expect(inbox.locator("td[data-label='Looked after by']")).to_have_text("sam")


def test_no_row_moves_under_the_pointer(inbox: Page, shop: Site) -> None:
    row = inbox.get_by_role("link", name="ORD-1", exact=True)
    row.hover()
    before = row.bounding_box()

    stuck("ORD-0", MAIL)
    inbox.clock.run_for(10_500)

    others = inbox.get_by_role("link", name="Others wait by now, show")
    expect(others).to_be_visible()
    expect(inbox.locator("#live-region")).to_have_text("Others wait by now, show")
    expect_runs(inbox, ["ORD-1"])
    assert row.bounding_box() == before
    expect(inbox.locator("[data-attention]")).to_have_text("2")  # the badge lies above, and moves nothing
    assert findings(inbox) == []

    inbox.mouse.move(0, 0)
    inbox.clock.run_for(10_500)

    expect_runs(inbox, ["ORD-0", "ORD-1"])
    expect(others).to_be_hidden()
    assert_not_reloaded(inbox)


def test_the_switch_holds_it_still(inbox: Page) -> None:
    asked, switch = looks(inbox), inbox.get_by_label("live")
    switch.uncheck()
    stuck("ORD-2")

    inbox.clock.run_for(60_000)

    assert asked == []
    expect_runs(inbox, ["ORD-1"])
    switch.check()
    inbox.mouse.move(0, 0)
    inbox.clock.run_for(10_500)
    expect_runs(inbox, ["ORD-1", "ORD-2"])


def test_in_a_hidden_tab_it_rests(inbox: Page) -> None:
    asked = looks(inbox)
    inbox.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    stuck("ORD-2")

    inbox.clock.run_for(60_000)

    assert asked == []
    inbox.evaluate("delete document.hidden")
    inbox.clock.run_for(10_500)
    expect_runs(inbox, ["ORD-1", "ORD-2"])


@pytest.mark.parametrize("how", ["answers 500", "is away"])
def test_what_cannot_be_brought_up_to_date_says_until_when_it_is_right(inbox: Page, how: str) -> None:
    if how == "is away":
        inbox.route("**/runs/attention/", lambda route: route.abort())
    else:
        inbox.route("**/runs/attention/", lambda route: route.fulfill(status=500, headers={"X-Request-Id": "abc12345"}))
    stuck("ORD-2")

    inbox.clock.run_for(10_500)

    why = {"answers 500": "The site answered 500, request abc12345.", "is away": "The site could not be reached."}[how]
    told = inbox.get_by_role("alert").filter(has_text=f"{why} This is as of")
    expect(told).to_contain_text("the next look is in 30 s.")
    expect_runs(inbox, ["ORD-1"])
    assert findings(inbox) == []
    inbox.unroute("**/runs/attention/")
    told.get_by_role("button", name="Look now").click()
    expect_runs(inbox, ["ORD-1", "ORD-2"])
    expect(inbox.get_by_role("alert")).to_have_count(0)
    assert_not_reloaded(inbox)


def test_a_page_that_has_nothing_new_still_tells_how_many_wait(shop: Site, page: Page) -> None:
    placed("all_well", "ORD-1")
    log_in(page, shop, "agent")
    page.clock.install()
    page.goto(f"{shop.url}/orders/ORD-1/")
    mark(page)
    badge = page.locator("[data-attention]")
    expect(badge).to_be_hidden()

    run = stuck("ORD-2")
    with page.expect_response(lambda answer: "/live/" in answer.url) as answer:
        page.clock.run_for(2_500)
    expect(badge).to_have_text("1")
    expect(page.get_by_role("link", name="Needs attention 1")).to_be_visible()
    with page.expect_response(lambda answer: "/live/" in answer.url) as answer:
        page.clock.run_for(2_500)
    assert answer.value.status == 304
    leave(run)
    page.clock.run_for(2_500)

    expect(badge).to_be_hidden()
    assert_not_reloaded(page)


def test_without_scripts_it_is_as_it_was_when_it_was_loaded(shop: Site, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    log_in(plain, shop, "agent")
    expect(plain.locator("[data-attention]")).to_be_hidden()
    stuck("ORD-1")

    plain.goto(f"{shop.url}/runs/attention/")
    expect(plain.get_by_role("link", name="Needs attention 1")).to_be_visible()
    plain.get_by_role("button", name="Retry refund payment of ORD-1").click()

    expect(plain.get_by_text("Nothing needs you.")).to_be_visible()
    expect(plain.locator("[data-attention]")).to_be_hidden()
    context.close()
