"""The demo's shop and its scenarios, as data: what is on the shelves, who may log in, and one order for each way
that an order can go, with the end it must come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from orders.roles import AGENT, SUPERVISOR, VIEWER


@dataclass(frozen=True, kw_only=True)
class DemoProduct:
    sku: str
    name: str
    price: Decimal
    stock: int
    weight_grams: int


PRODUCTS = (
    DemoProduct(sku="ITEM-001", name="Enamel mug", price=Decimal("30.00"), stock=500, weight_grams=320),
    DemoProduct(sku="ITEM-002", name="Hand coffee grinder", price=Decimal("39.99"), stock=300, weight_grams=640),
    DemoProduct(sku="ITEM-003", name="Pour-over dripper", price=Decimal("18.50"), stock=250, weight_grams=410),
    DemoProduct(sku="ITEM-004", name="Gooseneck kettle, 1 l", price=Decimal("64.00"), stock=80, weight_grams=1150),
    DemoProduct(sku="ITEM-005", name="Paper filters, 100", price=Decimal("4.95"), stock=1000, weight_grams=150),
    DemoProduct(sku="ITEM-006", name="House blend, 500 g", price=Decimal("12.40"), stock=400, weight_grams=520),
    DemoProduct(sku="ITEM-007", name="Digital scale", price=Decimal("27.90"), stock=120, weight_grams=300),
    DemoProduct(sku="ITEM-008", name="Signed barista poster", price=Decimal("15.00"), stock=1, weight_grams=90),
)


@dataclass(frozen=True, kw_only=True)
class DemoLogin:
    username: str
    password: str
    group: str
    """Empty: a customer."""
    first_name: str
    last_name: str
    email: str


# Made up for a shop on one's own machine, and printed on its start: these guard nothing.
LOGINS = (
    DemoLogin(
        username="supervisor",
        password="supervisor-demo",  # noqa: S106
        group=SUPERVISOR,
        first_name="Sam",
        last_name="Okafor",
        email="supervisor@example.com",
    ),
    DemoLogin(
        username="agent",
        password="agent-demo",  # noqa: S106
        group=AGENT,
        first_name="Gina",
        last_name="Moreau",
        email="agent@example.com",
    ),
    DemoLogin(
        username="viewer",
        password="viewer-demo",  # noqa: S106
        group=VIEWER,
        first_name="Vera",
        last_name="Lindqvist",
        email="viewer@example.com",
    ),
    DemoLogin(
        username="ada",
        password="ada-demo",  # noqa: S106
        group="",
        first_name="Ada",
        last_name="Pereira",
        email="ada@example.com",
    ),
)
CUSTOMER = "ada"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One way an order can go, and what has to be ordered to see it."""

    name: str
    order_id: str
    """The number of the demo's own order of this scenario: placing it again finds it."""
    title: str
    """As the list of scenarios says it."""
    story: str
    """What will happen, for whoever picks it."""
    end: str
    """The status its run must end in."""
    items: tuple[tuple[str, int], ...] = (("ITEM-001", 2), ("ITEM-002", 1))
    card_token: str = "tok_visa"  # noqa: S105
    postcode: str = "10115"
    email: str = "ada@example.com"
    cancel_when_completed: bool = False
    """A person cancels it once all is done."""


SCENARIOS = (
    Scenario(
        name="all_well",
        order_id="DEMO-WELL",
        title="All well",
        story="Stock, money, parcel and mail: every step is done.",
        end="completed",
    ),
    Scenario(
        name="insufficient_inventory",
        order_id="DEMO-STOCK",
        title="Insufficient inventory",
        story="There is one poster and two are ordered: nothing is held, nothing is charged.",
        end="compensated",
        items=(("ITEM-008", 2),),
    ),
    Scenario(
        name="card_declined",
        order_id="DEMO-CARD",
        title="Card declined",
        story="The gateway says no: the reserved pieces go back on the shelf.",
        end="compensated",
        card_token="tok_declined",  # noqa: S106
    ),
    Scenario(
        name="shipment_refused",
        order_id="DEMO-PARCEL",
        title="Shipment refused",
        story="The carrier does not serve the address: the payment is refunded, then the stock released.",
        end="compensated",
        postcode="00000",
    ),
    Scenario(
        name="payment_answer_lost",
        order_id="DEMO-ANSWER",
        title="Payment answer lost (the charge happened)",
        story="The gateway charges and its answer is lost: the charge is looked up, not made again.",
        end="completed",
        card_token="tok_lose_answer",  # noqa: S106
    ),
    Scenario(
        name="carrier_away",
        order_id="DEMO-RETRY",
        title="Carrier away, then back",
        story="The carrier gives no answer twice: the same booking is sent again until it does.",
        end="completed",
        postcode="00001",
    ),
    Scenario(
        name="mail_away",
        order_id="DEMO-MAIL",
        title="Mail server away, then back",
        story="The mail server is away twice: a paid and booked order waits for it, and is not undone.",
        end="completed",
        email="mail-away-then-back@example.com",
    ),
    Scenario(
        name="mail_bounces",
        order_id="DEMO-BOUNCE",
        title="Mail bounces",
        story="The mail server refuses the address: a paid and booked order is not undone, and a person is asked.",
        end="needs_attention",
        email="bounces@example.com",
    ),
    Scenario(
        name="carrier_slow",
        order_id="DEMO-SLOW",
        title="Carrier slow",
        story="The carrier takes four seconds to answer: the page shows the step under way, and other orders go on.",
        end="completed",
        postcode="00004",
    ),
    Scenario(
        name="refund_keeps_failing",
        order_id="DEMO-REFUND",
        title="Refund keeps failing",
        story="The shipment is refused and the refund does not get through: the stock is released, and a person is "
        "asked about the money.",
        end="needs_attention",
        card_token="tok_refund_fails",  # noqa: S106
        postcode="00000",
    ),
    Scenario(
        name="cancelled_after_completion",
        order_id="DEMO-CANCEL",
        title="Cancelled after completion",
        story="All is done, then the order is cancelled: mail, parcel, money and stock are undone, in that order.",
        end="compensated",
        cancel_when_completed=True,
    ),
)
BY_NAME: Mapping[str, Scenario] = {scenario.name: scenario for scenario in SCENARIOS}
CANCEL_REASON = "The customer changed their mind."


def order_fields(scenario: Scenario) -> dict[str, Any]:
    """The scenario's order as place_order wants it, without who places it."""
    login = next(login for login in LOGINS if login.username == CUSTOMER)
    return {
        "customer_ref": login.username,
        "items": [{"sku": sku, "quantity": quantity} for sku, quantity in scenario.items],
        "currency": "EUR",
        "email": scenario.email,
        "ship_name": f"{login.first_name} {login.last_name}",
        "ship_line1": "Torstraße 1",
        "ship_city": "Berlin",
        "ship_postcode": scenario.postcode,
        "ship_country": "DE",
        "card_token": scenario.card_token,
        "scenario": scenario.name,
    }
