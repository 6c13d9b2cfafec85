"""The pages in a real browser, on real web and worker processes: told as people use them, and checked for everybody."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from orders.demo import BY_NAME, LOGINS, order_fields
from orders.models import Order, User
from orders.services import place_order
from sagas.operations import Target, begin
from sagas.selectors import SagaRun
from tests.processes import Site, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.processes]

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
PASSWORDS = {login.username: login.password for login in LOGINS}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
AT_MOST = 30_000
"""Milliseconds that a worker may take for an order, on a busy machine."""


def log_in(page: Page, site: Site, username: str) -> None:
    page.goto(f"{site.url}/accounts/login/")
    page.get_by_label("Name").fill(username)
    page.get_by_label("Password").fill(PASSWORDS[username])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Orders", exact=True)).to_be_visible()


def placed(scenario: str, order_id: str) -> Order:
    """An order of the demo's customer, waiting for a worker."""
    user = User.objects.get(username="ada")
    order, _ = place_order(**order_fields(BY_NAME[scenario]), order_id=order_id, user=user, actor="customer:ada")
    return order


def await_end(order_id: str, status: str) -> None:
    wait_for(f"{order_id} to be {status}", lambda: SagaRun.objects.get(business_key=order_id).status == status)


def mark(page: Page) -> None:
    """Leave something behind that a reload would take away."""
    page.evaluate("window.notReloaded = true")


def assert_not_reloaded(page: Page) -> None:
    assert page.evaluate("window.notReloaded") is True


def fill_order(page: Page, *, sku: str = "ITEM-001", quantity: str = "2") -> None:
    page.get_by_label("Product").first.select_option(sku)
    page.get_by_label("Quantity").first.fill(quantity)


class TestPeople:
    def test_a_customer_places_an_order_and_sees_it_complete(self, shop: Site, page: Page) -> None:
        shop.start_worker()
        log_in(page, shop, "ada")

        page.get_by_role("link", name="Place order").first.click()
        fill_order(page)
        expect(page.locator("[data-total]")).to_have_text("60.00")
        page.get_by_role("button", name="Add a line").click()
        page.get_by_label("Product").nth(1).select_option("ITEM-002")
        expect(page.locator("[data-total]")).to_have_text("99.99")
        page.get_by_role("button", name="Review the order").click()
        page.get_by_role("button", name="Place the order").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("ORD-")
        mark(page)

        expect(page.get_by_role("heading", level=1)).to_contain_text("Completed", timeout=AT_MOST)
        assert_not_reloaded(page)
        expect(page.get_by_text("All 4 steps are done.").first).to_be_visible()
        expect(page).to_have_title(re.compile(r"^ORD-[0-9A-Z]{10}, completed, Orders$"))
        assert (
            Order.objects.get().total_amount
            == BY_NAME["all_well"].items[0][1] * 30 + Order.objects.get().lines.get(sku="ITEM-002").line_total
        )

    def test_a_removed_line_is_not_ordered(self, shop: Site, page: Page) -> None:
        log_in(page, shop, "ada")
        page.goto(f"{shop.url}/orders/new/")

        fill_order(page, quantity="1")
        page.get_by_role("button", name="Add a line").click()
        page.get_by_label("Product").nth(1).select_option("ITEM-002")
        page.get_by_role("button", name="Remove this line").nth(1).click()
        expect(page.get_by_label("Product")).to_have_count(2)
        expect(page.get_by_label("Product").nth(1)).to_be_hidden()
        expect(page.locator("[data-total]")).to_have_text("30.00")
        page.get_by_role("button", name="Review the order").click()
        page.get_by_role("button", name="Place the order").click()

        expect(page.get_by_role("heading", level=1)).to_contain_text("ORD-")
        assert list(Order.objects.get().lines.values_list("sku", "quantity")) == [("ITEM-001", 1)]

    def test_a_double_click_is_one_order(self, shop: Site, page: Page) -> None:
        log_in(page, shop, "ada")
        page.goto(f"{shop.url}/orders/new/")
        fill_order(page)

        page.get_by_role("button", name="Review the order").click()
        page.get_by_role("button", name="Place the order").dblclick()

        expect(page.get_by_role("heading", level=1)).to_contain_text("ORD-")
        assert Order.objects.count() == 1

    def test_a_supervisor_gets_a_stuck_refund_through(self, shop: Site, page: Page) -> None:
        shop.start_worker()
        log_in(page, shop, "supervisor")
        page.goto(f"{shop.url}/orders/new/")
        page.get_by_label("Refund keeps failing").check()
        page.get_by_role("button", name="Review the order").click()
        page.get_by_role("button", name="Place the order").click()
        heading = page.get_by_role("heading", level=1)
        mark(page)
        expect(heading).to_contain_text("Needs attention", timeout=AT_MOST)
        expect(page.get_by_text("Refund owed")).to_be_visible()
        assert_not_reloaded(page)

        page.get_by_role("button", name=re.compile("^Retry now.*Refund payment$")).click()
        expect(page.get_by_text("Retry now: done.")).to_be_visible()
        mark(page)

        expect(heading).to_contain_text("Undone", timeout=AT_MOST)
        assert_not_reloaded(page)
        expect(page.get_by_text("Another try asked for")).to_be_visible()
        expect(page.get_by_text("Refund owed")).to_have_count(0)

    def test_what_is_open_and_where_one_is_stay_while_it_changes(self, shop: Site, page: Page) -> None:
        placed("carrier_away", "ORD-1")
        log_in(page, shop, "ada")
        page.goto(f"{shop.url}/orders/ORD-1/")
        mark(page)
        shop.start_worker()
        summary = page.locator("#tries-reserve_inventory-action summary")
        summary.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#tries-reserve_inventory-action")).to_have_attribute("open", "")

        expect(page.get_by_role("heading", level=1)).to_contain_text("Completed", timeout=AT_MOST)

        assert_not_reloaded(page)
        expect(page.locator("#tries-reserve_inventory-action")).to_have_attribute("open", "")
        expect(summary).to_be_focused()

    def test_the_live_switch_holds_the_page_still(self, shop: Site, page: Page) -> None:
        placed("all_well", "ORD-1")
        log_in(page, shop, "ada")
        page.clock.install()  # the page's own timers run when told to
        page.goto(f"{shop.url}/orders/ORD-1/")
        heading, switch = page.get_by_role("heading", level=1), page.get_by_label("live")
        looks: list[str] = []
        page.on("request", lambda request: looks.append(request.url) if "/live/" in request.url else None)
        switch.uncheck()

        shop.start_worker()
        await_end("ORD-1", "completed")
        page.clock.run_for(60_000)
        assert looks == []
        expect(heading).to_contain_text("Pending")
        switch.check()
        page.clock.run_for(5_000)

        expect(heading).to_contain_text("Completed")
        assert looks == [f"{shop.url}/orders/ORD-1/live/"]

    def test_the_list_follows_too(self, shop: Site, page: Page) -> None:
        placed("all_well", "ORD-1")
        log_in(page, shop, "ada")
        mark(page)
        expect(page.get_by_text("Pending", exact=True)).to_be_visible()

        shop.start_worker()

        expect(page.locator("td").get_by_text("Completed", exact=True)).to_be_visible(timeout=AT_MOST)
        assert_not_reloaded(page)

    def test_new_orders_do_not_move_the_rows_and_marks_stay(self, shop: Site, page: Page) -> None:
        for number in (1, 2):
            placed("all_well", f"ORD-{number}")
        log_in(page, shop, "supervisor")
        page.get_by_label("Mark ORD-1").check()
        page.get_by_label("Mark ORD-2").focus()
        before = page.get_by_role("link", name="ORD-1").bounding_box()

        placed("all_well", "ORD-3")

        expect(page.get_by_role("link", name="1 new order, show")).to_be_visible(timeout=AT_MOST)
        assert page.get_by_role("link", name="ORD-1").bounding_box() == before
        expect(page.get_by_label("Mark ORD-1")).to_be_checked()
        expect(page.get_by_label("Mark ORD-2")).to_be_focused()
        page.get_by_role("link", name="1 new order, show").click()
        expect(page.locator("a.id").first).to_have_text("ORD-3")

    def test_single_keys_move_through_the_list_unless_one_writes_or_wants_none(self, shop: Site, page: Page) -> None:
        for number in (1, 2, 3):
            placed("all_well", f"ORD-{number}")
        log_in(page, shop, "supervisor")
        link = {number: page.get_by_role("link", name=f"ORD-{number}") for number in (1, 2, 3)}

        for key in ("j", "j", "j", "j", "k"):
            page.keyboard.press(key)
        expect(link[2]).to_be_focused()
        page.keyboard.press("x")
        expect(page.get_by_label("Mark ORD-2")).to_be_checked()
        page.keyboard.press("/")
        page.keyboard.type("jkx?")
        expect(page.get_by_role("searchbox")).to_have_value("jkx?")
        expect(page.get_by_label("Mark ORD-2")).to_be_checked()
        link[1].focus()
        page.keyboard.press("k")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text("ORD-2")

        page.keyboard.press("?")
        page.get_by_label("let single keys move through lists").uncheck()
        page.get_by_role("button", name="Keep it so").click()
        page.goto(f"{shop.url}/orders/")
        page.keyboard.press("j")
        page.keyboard.press("/")
        expect(page.locator("body")).to_be_focused()

    def test_who_stands_on_a_row_stays_there_while_it_changes(self, shop: Site, page: Page) -> None:
        placed("all_well", "ORD-1")
        log_in(page, shop, "ada")
        link = page.get_by_role("link", name="ORD-1")
        link.focus()
        mark(page)

        shop.start_worker()

        expect(page.locator("td").get_by_text("Completed", exact=True)).to_be_visible(timeout=AT_MOST)
        expect(link).to_be_focused()
        assert_not_reloaded(page)

    def test_marked_orders_are_cancelled_together(self, shop: Site, page: Page) -> None:
        shop.start_worker()
        for number in (1, 2, 3):
            placed("all_well", f"ORD-{number}")
            await_end(f"ORD-{number}", "completed")
        log_in(page, shop, "supervisor")
        for number in (1, 3):
            page.get_by_label(f"Mark ORD-{number}").check()

        page.get_by_role("button", name="Cancel …").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Cancel 2 orders")
        assert findings(page) == []
        page.get_by_label("Reason").fill("Recalled by the maker.")
        page.get_by_role("button", name="Cancel 2").click()

        expect(page.get_by_text("All 2 were taken.")).to_be_visible(timeout=AT_MOST)
        assert findings(page) == []
        for number, end in ((1, "compensated"), (2, "completed"), (3, "compensated")):
            await_end(f"ORD-{number}", end)


class TestTrouble:
    def test_a_page_that_is_not_brought_up_to_date_says_so_and_keeps_what_it_shows(
        self, shop: Site, page: Page
    ) -> None:
        placed("all_well", "ORD-1")
        log_in(page, shop, "ada")
        page.clock.install()
        page.goto(f"{shop.url}/orders/ORD-1/")
        page.route("**/live/", lambda route: route.fulfill(status=503, headers={"X-Request-Id": "abc123"}, body=""))

        page.clock.run_for(3_000)

        told = page.get_by_role("alert").filter(has_text="The site answered 503")
        expect(told).to_contain_text("request abc123. This is as of")
        expect(told).to_contain_text("the next look is in 30 s.")
        expect(page.get_by_role("heading", level=1)).to_contain_text("ORD-1")
        assert findings(page) == []
        page.unroute("**/live/")
        told.get_by_role("button", name="Look now").click()
        expect(page.locator(".stale")).to_have_count(0)

    def test_a_login_that_ends_is_told_and_nothing_typed_is_lost(self, shop: Site, page: Page) -> None:
        log_in(page, shop, "ada")
        page.clock.install()
        page.goto(f"{shop.url}/orders/new/")
        page.get_by_role("textbox", name="City").fill("Hamburg")
        warning = page.get_by_role("alert")
        expect(warning).to_have_count(0)

        page.clock.fast_forward((14 * 86_400 - 240) * 1000)
        page.clock.run_for(2_000)

        expect(warning).to_contain_text("You will be logged out in")
        assert findings(page) == []
        page.get_by_role("button", name="Stay logged in").click()
        expect(warning).to_have_count(0)
        expect(page.get_by_role("textbox", name="City")).to_have_value("Hamburg")
        expect(page.locator("#live-region")).to_have_text("You stay logged in.")

    def test_all_on_the_page_are_marked_at_once(self, shop: Site, page: Page) -> None:
        for number in (1, 2):
            placed("all_well", f"ORD-{number}")
        log_in(page, shop, "supervisor")

        page.get_by_label("Mark all on this page").check()
        expect(page.get_by_label("Mark ORD-1")).to_be_checked()
        expect(page.get_by_text("2 marked")).to_be_visible()
        page.get_by_label("Mark ORD-2").uncheck()
        expect(page.get_by_text("1 marked")).to_be_visible()
        with page.expect_download() as told:
            page.get_by_role("button", name="Export CSV of these").click()

        assert told.value.suggested_filename == "orders.csv"
        lines = told.value.path().read_text().splitlines()
        assert [line.partition(",")[0] for line in lines[1:]] == ["ORD-1"]
        expect(page.get_by_role("button", name="Export CSV of these")).to_be_enabled()

    def test_a_dialog_keeps_what_was_typed_and_leads_to_the_mistake(self, shop: Site, page: Page) -> None:
        shop.start_worker()
        placed("refund_keeps_failing", "ORD-1")
        await_end("ORD-1", "needs_attention")
        log_in(page, shop, "supervisor")
        page.goto(f"{shop.url}/orders/ORD-1/")

        page.get_by_role("link", name="Settle by hand … Refund payment").first.press("Enter")
        expect(page.get_by_text("99.99 EUR goes back to the card")).to_be_visible()
        page.get_by_label("Evidence").fill("BANK-77")
        page.get_by_label("Reason").fill("Too short")
        page.evaluate("document.querySelector('main form.fields').noValidate = true")
        page.get_by_role("button", name="Settle by hand").press("Enter")

        expect(page.locator(".summary")).to_be_focused()
        expect(page.get_by_label("Evidence")).to_have_value("BANK-77")
        assert findings(page) == []
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Reason")).to_be_focused()
        page.get_by_label("Reason").fill("The bank sent it back by hand.")
        page.get_by_role("button", name="Settle by hand").press("Enter")
        expect(page.get_by_text("Settle by hand: done.")).to_be_visible()
        expect(page.get_by_role("heading", level=1)).to_contain_text("Undone", timeout=AT_MOST)


class TestWithoutScripts:
    @pytest.fixture
    def plain(self, browser: Browser) -> Iterator[Page]:
        context = browser.new_context(java_script_enabled=False)
        context.set_default_timeout(15_000)
        yield context.new_page()
        context.close()

    def test_an_order_is_placed_and_cancelled(self, shop: Site, plain: Page) -> None:
        shop.start_worker()
        log_in(plain, shop, "ada")
        plain.get_by_role("link", name="Place order").first.click()
        fill_order(plain)
        plain.get_by_role("button", name="Review the order").click()
        plain.get_by_role("button", name="Place the order").click()
        order_id = Order.objects.get().order_id
        await_end(order_id, "completed")

        plain.reload()
        plain.get_by_role("link", name="Cancel order …").click()
        expect(plain.get_by_text("60.00 EUR goes back to the card")).to_be_visible()
        plain.get_by_label("Reason").fill("Bought it elsewhere.")
        plain.get_by_role("button", name="Cancel the order").click()
        expect(plain.get_by_text("The cancellation is under way")).to_be_visible()
        await_end(order_id, "compensated")

        plain.reload()
        expect(plain.get_by_role("heading", level=1)).to_contain_text("Undone")
        expect(plain.get_by_text("Bought it elsewhere.").first).to_be_visible()

    def test_there_is_room_for_more_lines(self, shop: Site, plain: Page) -> None:
        log_in(plain, shop, "ada")
        plain.goto(f"{shop.url}/orders/new/")
        fill_order(plain, quantity="3")

        expect(plain.get_by_role("button", name="Add a line")).to_have_count(0)
        expect(plain.get_by_role("button", name="Remove")).to_have_count(0)
        plain.get_by_label("Product").nth(1).select_option("ITEM-002")
        plain.get_by_role("button", name="Review the order").click()
        plain.get_by_role("button", name="Place the order").click()

        assert sorted(Order.objects.get().lines.values_list("sku", "quantity")) == [("ITEM-001", 3), ("ITEM-002", 1)]


class TestKeyboard:
    def test_the_first_stop_leads_to_the_content(self, shop: Site, page: Page) -> None:
        log_in(page, shop, "ada")

        page.keyboard.press("Tab")
        skip = page.get_by_role("link", name="Skip to the content")
        expect(skip).to_be_focused()
        expect(skip).to_be_in_viewport()
        page.keyboard.press("Enter")

        expect(page.locator("#main")).to_be_focused()

    def test_mistakes_are_gone_to_at_once(self, shop: Site, page: Page) -> None:
        log_in(page, shop, "ada")
        page.goto(f"{shop.url}/orders/new/")
        fill_order(page)
        page.get_by_role("textbox", name="E-mail").fill("nobody")
        page.get_by_role("button", name="Review the order").press("Enter")

        expect(page.locator(".summary")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="E-mail")).to_be_focused()
        page.keyboard.press("Enter")

        expect(page.get_by_role("textbox", name="E-mail")).to_be_focused()
        expect(page.get_by_role("textbox", name="E-mail")).to_have_accessible_description(
            "This is not an e-mail address, like ada@example.com."
        )

    def test_a_scenario_is_picked_with_the_arrows(self, shop: Site, page: Page) -> None:
        log_in(page, shop, "ada")
        page.goto(f"{shop.url}/orders/new/")

        page.get_by_label("As filled in below").focus()
        page.keyboard.press("ArrowDown")

        expect(page.get_by_label("All well")).to_be_checked()


@pytest.fixture
def pages(shop: Site) -> dict[str, str]:
    """Name -> address of each page in each of its states."""
    shop.start_worker()
    for name, order_id in (("all_well", "ORD-1"), ("refund_keeps_failing", "ORD-2")):
        placed(name, order_id)
    await_end("ORD-1", "completed")
    await_end("ORD-2", "needs_attention")
    run = SagaRun.objects.get(business_key="ORD-2").pk
    undo = "step=process_payment&direction=compensation"
    cause = f"saga=order_processing&error=unavailable&provider=sandbox+gateway&{undo}"
    taken = begin(act="assign", targets=[Target(run_id=run)], about="one", actor="user:supervisor", reason="mine")
    return {
        "list": "/orders/",
        "empty list": "/orders/?state=undone",
        "found nothing": "/orders/?q=nothing",
        "list with chips": "/orders/?customer=ada&least=1&sort=oldest&most=nonsense",
        "completed order": "/orders/ORD-1/",
        "order that needs attention": "/orders/ORD-2/",
        "form": "/orders/new/",
        "cancel": "/orders/ORD-1/cancel/",
        "hand over": "/orders/ORD-1/hand-over/",
        "cannot be handed over": "/orders/ORD-2/hand-over/",
        "not cancellable": "/orders/ORD-2/cancel/",
        "runs": "/runs/",
        "run": f"/runs/{run}/",
        "import": "/runs/import/",
        "needs attention": "/runs/attention/",
        "many, before": f"/runs/bulk/new/?act=retry&{cause}",
        "many, after": f"/runs/bulk/{taken.pk}/",
        "acts on many": "/runs/bulk/",
        "retry": f"/runs/{run}/retry/?{undo}",
        "settle by hand": f"/runs/{run}/resolve/?{undo}",
        "hand to somebody": f"/runs/{run}/assign/",
        "overview": "/overview/",
        "overview of a quiet hour": "/overview/?period=hour",
        "abandon": f"/runs/{run}/abandon/",
        "order's notes": "/orders/ORD-2/?history=notes",
        "one try among many": "/orders/ORD-2/#try-process_payment-compensation-1",
        "list, longest unchanged first": "/orders/?sort=unchanged&state=needs_attention",
        "runs, none": "/runs/?key=nothing",
        "inbox of one's own": "/runs/attention/?mine=1",
        "health": "/health/",
        "runbooks": "/health/runbooks/",
        "providers": "/providers/",
        "accessibility": "/accessibility/",
        "preferences": "/preferences/",
        "not found": "/nowhere/",
        "API, its front page": "/api/v1/docs",
        "API, problems": "/api/v1/problems",
        "API, one problem": "/api/v1/problems/state-conflict",
    }


def findings(page: Page) -> list[str]:
    """What axe-core has against the page as it is, and whether it can be pushed sideways."""
    options = {
        "runOnly": {"type": "tag", "values": TAGS},
        "rules": {"target-size": {"enabled": True}},  # the one rule of WCAG 2.2, off unless asked for
        "resultTypes": ["violations"],
        "preload": False,  # of style sheets, for rules that are not asked here: the policy refuses it
    }
    results: dict[str, Any] = Axe().run(page, options=options).response
    found = [f"{v['id']}: {node['html'][:150]}" for v in results["violations"] for node in v["nodes"]]
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found + ([f"{wide} px too wide"] if wide > 0 else [])


CLIPPED = """() => [...document.querySelectorAll("main *, header *, footer *")].filter((at) => {
  const look = getComputedStyle(at);
  if (at.closest(".hidden-text, .skip, svg, select, thead") || !at.clientWidth) return false;
  if (look.overflowX === "visible") return false;
  return !["auto", "scroll"].includes(look.overflowX) && at.scrollWidth > at.clientWidth + 1;
}).map((at) => at.outerHTML.slice(0, 120))"""
"""What is cut off: wider than its box, in a box that does not scroll."""
SPACED = """() => { for (const at of document.querySelectorAll("body, body *")) {
  at.style.setProperty("line-height", "1.5", "important"); at.style.setProperty("letter-spacing", ".12em", "important");
  at.style.setProperty("word-spacing", ".16em", "important");
  if (at.matches("p")) at.style.setProperty("margin-bottom", "2em", "important");
} }"""
"""WCAG 2.2, 1.4.12."""


@pytest.mark.looks
class TestForEverybody:
    def test_large_and_spaced_text_is_neither_cut_off_nor_too_wide(
        self, shop: Site, pages: dict[str, str], page: Page
    ) -> None:
        found: dict[str, list[str]] = {}
        log_in(page, shop, "supervisor")
        for name, address in pages.items():
            for how, width in (("twice as large", 1280), ("spaced", 1280), ("spaced", 320)):
                page.set_viewport_size({"width": width, "height": 800})
                page.goto("about:blank")  # an address that differs after its # alone would not be loaded again
                page.goto(f"{shop.url}{address}")
                page.evaluate(SPACED if how == "spaced" else "document.documentElement.style.fontSize = '200%'")
                wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                complaints = [f"{wide} px too wide"] if wide > 0 else []
                if complaints := complaints + page.evaluate(CLIPPED):
                    found[f"{name}, {how}, {width} px"] = complaints

        assert found == {}

    @pytest.mark.parametrize(("scheme", "width"), [("light", 320), ("dark", 1280)])
    def test_nor_does_the_admin(
        self, shop: Site, pages: dict[str, str], page: Page, scheme: Literal["light", "dark"], width: int
    ) -> None:
        found: dict[str, list[str]] = {}
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 800})
        log_in(page, shop, "supervisor")
        page.goto(f"{shop.url}/admin/")
        inside = page.locator("#content a").evaluate_all("links => links.map((link) => link.getAttribute('href'))")
        addresses = ["/admin/", *dict.fromkeys(inside)]

        for address in addresses:
            page.goto(f"{shop.url}{address}")
            first = page.locator("#result_list tbody th a").first
            if first.count():
                addresses.append(str(first.get_attribute("href")))
            if complaints := findings(page):
                found[address] = complaints

        assert len(addresses) > 50  # lists, and a row of each
        assert found == {}

    def test_a_shop_without_orders_shuts_nobody_out(self, shop: Site, page: Page) -> None:
        found: dict[str, list[str]] = {}
        log_in(page, shop, "supervisor")
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            for address in ("/orders/", "/runs/", "/runs/attention/", "/runs/bulk/", "/overview/", "/health/"):
                page.goto(f"{shop.url}{address}")
                for width in (1280, 320):
                    page.set_viewport_size({"width": width, "height": 800})
                    if complaints := findings(page):
                        found[f"{address}, {scheme}, {width} px"] = complaints

        assert found == {}

    def test_what_is_focused_is_never_behind_the_header(self, shop: Site, page: Page) -> None:
        for number in range(6):
            placed("all_well", f"ORD-{number}")
        log_in(page, shop, "supervisor")
        page.set_viewport_size({"width": 1280, "height": 420})
        hidden = []
        for key in ["Tab"] * 60 + ["Shift+Tab"] * 60:
            page.keyboard.press(key)
            hidden += page.evaluate(
                """() => {
                  const at = document.activeElement, bar = document.querySelector(".bar");
                  if (at === document.body || bar.contains(at) || at.closest(".skip")) return [];
                  const here = at.getBoundingClientRect();
                  return here.bottom <= bar.getBoundingClientRect().bottom ? [at.outerHTML.slice(0, 100)] : [];
                }"""
            )

        assert hidden == []

    def test_nothing_moves_when_the_script_comes(self, shop: Site, page: Page) -> None:
        """On a slow line it comes long after the page: with it or without, all is where it is."""
        placed("all_well", "ORD-1")
        log_in(page, shop, "supervisor")
        where = """() => [...document.querySelectorAll("main :is(a, section, h2, code)")]
          .map((at) => at.getBoundingClientRect()).map((at) => [at.x, at.y, at.width, at.height].join())"""
        page.route("**/live*.js", lambda route: route.abort())
        page.goto(f"{shop.url}/orders/ORD-1/")
        before = page.evaluate(where)
        expect(page.get_by_role("button", name="Copy number")).to_have_count(0)

        page.unroute("**/live*.js")
        page.goto(f"{shop.url}/orders/ORD-1/")

        expect(page.get_by_role("button", name="Copy number")).to_be_visible()
        assert page.evaluate(where) == before

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_no_page_shuts_anybody_out(
        self, shop: Site, pages: dict[str, str], page: Page, scheme: Literal["light", "dark"]
    ) -> None:
        found: dict[str, list[str]] = {}
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")

        def look(name: str) -> None:
            for width in (1280, 320):
                page.set_viewport_size({"width": width, "height": 800})
                if complaints := findings(page):
                    found[f"{name}, {width} px"] = complaints

        page.goto(f"{shop.url}/accounts/login/")
        look("login")
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        look("login refused")
        log_in(page, shop, "supervisor")
        for name, address in pages.items():
            page.goto(f"{shop.url}{address}")
            for details in page.locator("details").all():
                details.evaluate("details => { details.open = true; }")
            look(name)
        page.goto(f"{shop.url}{pages['form']}")
        for field in ("E-mail", "City"):
            page.get_by_role("textbox", name=field).fill("\u202e")
        page.get_by_label("Product").first.select_option("ITEM-001")
        page.get_by_label("Quantity").first.fill("0")
        page.get_by_role("button", name="Review the order").click()
        expect(page.locator(".summary")).to_be_visible()
        look("form with mistakes")
        page.goto(f"{shop.url}{pages['form']}")
        fill_order(page)
        page.get_by_role("button", name="Review the order").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Review the order")
        look("review")
        page.goto(f"{shop.url}{pages['cancel']}")
        page.get_by_label("Reason").fill("\u202e turned around")
        page.get_by_role("button", name="Cancel the order").click()
        expect(page.locator("#reason-fault")).to_be_visible()
        look("cancel with a mistake")
        page.goto(f"{shop.url}{pages['import']}")
        page.get_by_label("File").set_input_files({"name": "a.json", "mimeType": "application/json", "buffer": b"[]"})
        page.get_by_role("button", name="Import it").click()
        expect(page.locator(".summary")).to_be_focused()
        look("import with a mistake")

        assert found == {}
