"""What may come in as an order, checked in one place: the form, the API and Python callers all get the same answers.

Two steps: `check_order` turns loose values into a CheckedOrder or raises InvalidOrder with every fault it found, and
`store_order` writes it once: the same order a second time is the first one, another one under its number is refused.
Faults name the argument they are about; those of lines are written `items.0.quantity`.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils import timezone

from orders.exceptions import FieldError, InvalidMoney, InvalidOrder, OrderConflict
from orders.models import Order, OrderLine, Product
from orders.money import exponent, format_money, quantize, to_decimal
from sagas.barrier import insert_missing

if TYPE_CHECKING:
    from orders.models import ApiKey, User

MAX_LINES = 100
MAX_QUANTITY = 999
MAX_TOTAL = Decimal("99999999999.999")
"""What the column holds."""

ORDER_ID = re.compile(r"[A-Za-z0-9._-]{1,40}")
TAKEN_BY_PAGES = frozenset({".", "..", "new", "bulk", "views", "export.csv"})
"""These would hide behind the site's own addresses."""
COUNTRY = re.compile(r"[A-Z]{2}")
CARD_TOKEN = re.compile(r"[A-Za-z0-9._:-]{1,100}")
CARD_NUMBER = re.compile(r"[0-9]{12,19}")

# Turn the reading direction around, or split lines where nobody sees it: they make one text look like another.
MISLEADING = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

TEXT_LIMITS = {
    "user_id": 100,
    "email": 254,
    "ship_name": 100,
    "ship_line1": 200,
    "ship_city": 100,
    "ship_postcode": 20,
    "ship_country": 2,
    "sku": 64,
}

ID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's: no letter that is taken for a digit."""


@dataclass(frozen=True, kw_only=True)
class CheckedLine:
    """One line, equal SKUs already summed, at the price of this moment."""

    sku: str
    name: str
    quantity: int
    unit_price: Decimal

    @property
    def total(self) -> Decimal:
        return self.unit_price * self.quantity


@dataclass(frozen=True, kw_only=True)
class CheckedOrder:
    """An order that may be stored as it is."""

    order_id: str | None
    customer_ref: str
    email: str
    currency: str
    total_amount: Decimal
    lines: tuple[CheckedLine, ...]
    ship_name: str
    ship_line1: str
    ship_city: str
    ship_postcode: str
    ship_country: str
    card_token: str


@dataclass
class Faults:
    """Collects what is wrong, so that the caller hears all of it at once."""

    found: list[FieldError] = field(default_factory=list)

    def add(self, name: str, code: str, message: str) -> None:
        self.found.append(FieldError(field=name, code=code, message=message))

    def stop(self) -> None:
        """Raises InvalidOrder if anything was found."""
        if self.found:
            raise InvalidOrder(self.found)


def check_order(
    *,
    order_id: object,
    customer_ref: object,
    items: object,
    total_amount: object,
    currency: object,
    email: object,
    ship_name: object,
    ship_line1: object,
    ship_city: object,
    ship_postcode: object,
    ship_country: object,
    card_token: object,
) -> CheckedOrder:
    """The order, fit to be stored. Raises InvalidOrder with everything that is wrong with it."""
    faults = Faults()
    texts = {
        "user_id": clean_text("user_id", customer_ref, faults),
        "email": clean_text("email", email, faults),
        "ship_name": clean_text("ship_name", ship_name, faults),
        "ship_line1": clean_text("ship_line1", ship_line1, faults),
        "ship_city": clean_text("ship_city", ship_city, faults),
        "ship_postcode": clean_text("ship_postcode", ship_postcode, faults),
        "ship_country": clean_text("ship_country", ship_country, faults).upper(),
    }
    number = _checked_order_id(order_id, faults)
    _check_email(texts["email"], faults)
    if texts["ship_country"] and not COUNTRY.fullmatch(texts["ship_country"]):
        faults.add("ship_country", "invalid", "Give the country as two letters, for example DE.")
    token = _checked_card(card_token, faults)
    code = _checked_currency(currency, faults)
    quantities = _checked_quantities(items, faults)
    lines = _priced(quantities, code, number, faults)
    total = _checked_total(total_amount, lines, code, faults)
    faults.stop()
    return CheckedOrder(
        order_id=number,
        customer_ref=texts["user_id"],
        email=texts["email"],
        currency=code,
        total_amount=total,
        lines=tuple(lines),
        ship_name=texts["ship_name"],
        ship_line1=texts["ship_line1"],
        ship_city=texts["ship_city"],
        ship_postcode=texts["ship_postcode"],
        ship_country=texts["ship_country"],
        card_token=token,
    )


def clean_text(
    name: str, value: object, faults: Faults, *, limit: int | None = None, label: str = "", lines: bool = False
) -> str:
    """`value` without outer blanks. Missing, too long or with control characters: a fault, and an empty text.

    With `lines` it may have several.
    """
    label = label or name
    longest = limit if limit is not None else TEXT_LIMITS[name]
    if value is None or value == "":
        faults.add(label, "required", "This is needed.")
        return ""
    if not isinstance(value, str):
        faults.add(label, "invalid", "This must be text.")
        return ""
    allowed = value.replace("\n", "") if lines else value
    if any(unicodedata.category(char) in {"Cc", "Cs"} or char in MISLEADING for char in allowed):
        faults.add(label, "control_character", "This holds a control character. Take it out.")
        return ""
    text = value.strip()
    if not text:
        faults.add(label, "required", "This is needed.")
        return ""
    if len(text) > longest:
        faults.add(label, "too_long", f"This is {len(text)} characters long; at most {longest} are taken.")
        return ""
    return text


def _checked_order_id(value: object, faults: Faults) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not ORDER_ID.fullmatch(value) or value in TAKEN_BY_PAGES:
        faults.add(
            "order_id",
            "invalid",
            "An order number has 1 to 40 letters, digits, dots, underscores or hyphens, for example ORD-123.",
        )
        return None
    return value


def _check_email(text: str, faults: Faults) -> None:
    if not text:
        return
    try:
        validate_email(text)
    except ValidationError:
        faults.add("email", "invalid", "This is not an e-mail address, like ada@example.com.")


def _checked_card(value: object, faults: Faults) -> str:
    if value is None or value == "":
        faults.add("card_token", "required", "This is needed.")
        return ""
    if isinstance(value, str) and CARD_NUMBER.fullmatch(re.sub(r"[ -]", "", value)):
        # Said without repeating it: an error message is stored and logged, a card number must not be.
        faults.add("card_token", "card_number", "Send the token of a card, never its number.")
        return ""
    if not isinstance(value, str) or not CARD_TOKEN.fullmatch(value):
        faults.add("card_token", "invalid", "This is not a card token, like tok_visa.")
        return ""
    return value


def _checked_currency(value: object, faults: Faults) -> str:
    """The currency, or an empty text with a fault."""
    if value is None or value == "":
        faults.add("currency", "required", "This is needed.")
        return ""
    try:
        exponent(str(value))
    except InvalidMoney:
        faults.add("currency", "unknown_currency", "Give a currency as three letters of ISO 4217, for example EUR.")
        return ""
    return str(value)


def _checked_quantities(items: object, faults: Faults) -> dict[str, tuple[int, int]]:
    """SKU -> (quantity of all its lines, position of the first one)."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Sequence | Iterable):
        faults.add("items", "invalid", "Give a list of items, each with a sku and a quantity.")
        return {}
    given = list(items)
    if not given:
        faults.add("items", "required", "An order has at least one item.")
        return {}
    if len(given) > MAX_LINES:
        faults.add("items", "too_many", f"An order has at most {MAX_LINES} lines; these are {len(given)}.")
        return {}
    wanted: dict[str, tuple[int, int]] = {}
    for position, item in enumerate(given):
        _take_line(position, item, wanted, faults)
    return wanted


def _take_line(position: int, item: Any, wanted: dict[str, tuple[int, int]], faults: Faults) -> None:
    label = f"items.{position}"
    if not isinstance(item, Mapping):
        faults.add(label, "invalid", "An item has a sku and a quantity.")
        return
    unknown = sorted(str(key) for key in item if key not in {"sku", "quantity"})
    if unknown:
        faults.add(label, "unknown_field", f"An item has a sku and a quantity, and not {clip(', '.join(unknown))}.")
    sku = clean_text("sku", item.get("sku"), faults, label=f"{label}.sku")
    quantity = item.get("quantity")
    if quantity is None:
        faults.add(f"{label}.quantity", "required", "This is needed.")
        return
    # True is an int to Python; nobody orders True pieces.
    if isinstance(quantity, bool) or not isinstance(quantity, int):
        faults.add(f"{label}.quantity", "invalid", "The quantity must be a whole number.")
        return
    if not 1 <= quantity <= MAX_QUANTITY:
        faults.add(f"{label}.quantity", "out_of_range", f"The quantity must be from 1 to {MAX_QUANTITY}.")
        return
    before, first = wanted.get(sku, (0, position))
    if before + quantity > MAX_QUANTITY:
        faults.add(
            f"{label}.quantity",
            "out_of_range",
            f"{sku} is ordered {before + quantity} times over several lines; at most {MAX_QUANTITY} are taken.",
        )
        return
    if sku:
        wanted[sku] = (before + quantity, first)


def _priced(
    wanted: Mapping[str, tuple[int, int]], currency: str, order_id: str | None, faults: Faults
) -> list[CheckedLine]:
    """The lines in the order given, each at its product's price."""
    offers = {
        sku: (name, price, sold_in)
        for sku, name, price, sold_in in Product.objects.filter(sku__in=list(wanted), is_active=True).values_list(
            "sku", "name", "price", "currency"
        )
    }
    if order_id is not None:
        # The same order again, after a price has changed, is still the same order: what was agreed on counts.
        offers |= {
            sku: (name, price, sold_in)
            for sku, name, price, sold_in in OrderLine.objects.filter(order__order_id=order_id).values_list(
                "sku", "name", "unit_price", "order__currency"
            )
        }
    lines = []
    for sku, (quantity, position) in wanted.items():
        if sku not in offers:
            faults.add(f"items.{position}.sku", "unknown_sku", f"There is no product {sku}.")
            continue
        name, price, sold_in = offers[sku]
        if currency and sold_in != currency:
            faults.add("currency", "wrong_currency", f"{sku} is sold in {sold_in}, not in {currency}.")
            continue
        lines.append(CheckedLine(sku=sku, name=name, quantity=quantity, unit_price=price))
    return lines


def _checked_total(given: object, lines: Sequence[CheckedLine], currency: str, faults: Faults) -> Decimal:
    """What the lines add up to, compared with what the caller took it to be. None: the caller does not say."""
    total = Decimal(0)
    for line in lines:
        total += line.total
    if not currency:
        return total
    total = quantize(total, currency)
    if total > MAX_TOTAL:
        faults.add("items", "total_too_large", f"An order adds up to at most {format_money(MAX_TOTAL, currency)}.")
        return total
    if total == 0 and not faults.found:
        faults.add("total_amount", "nothing_to_pay", "An order without anything to pay is not taken.")
    if given is None:
        return total
    try:
        if isinstance(given, bool) or not isinstance(given, str | int | float | Decimal):
            raise InvalidMoney("An amount is a number.")
        claimed = to_decimal(given, currency)
    except InvalidMoney as error:
        faults.add("total_amount", "invalid_amount", str(error))
        return total
    # Only a priced order can be compared: with an unknown SKU in it the sum means nothing.
    if claimed != total and not faults.found:
        faults.add(
            "total_amount",
            "total_mismatch",
            f"The items add up to {format_money(total, currency)}, and {format_money(claimed, currency)} was given.",
        )
    return total


def clip(text: str, longest: int = 60) -> str:
    """Of what a stranger sent, as much as an error message needs."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def new_order_id() -> str:
    """A number for an order that came without one. 50 random bits: no one guesses a neighbour's."""
    return "ORD-" + "".join(secrets.choice(ID_ALPHABET) for _ in range(10))


def store_order(
    checked: CheckedOrder,
    *,
    user: User | None = None,
    api_key: ApiKey | None = None,
    actor: str,
    scenario: str = "",
) -> tuple[Order, bool]:
    """Write the order with its lines, or find it: (order, whether it is new). Call it inside a transaction.

    Raises OrderConflict if the number belongs to another order.
    """
    order = Order(
        order_id=checked.order_id or new_order_id(),
        user=user,
        api_key=api_key,
        customer_ref=checked.customer_ref,
        email=checked.email,
        currency=checked.currency,
        total_amount=checked.total_amount,
        ship_name=checked.ship_name,
        ship_line1=checked.ship_line1,
        ship_city=checked.ship_city,
        ship_postcode=checked.ship_postcode,
        ship_country=checked.ship_country,
        card_token=checked.card_token,
        placed_at=timezone.now(),
        placed_by=actor,
        scenario=scenario,
    )
    # Of two callers with one number at the same moment, the second waits here, and finds the first one's order.
    if not insert_missing(order):
        return _same(Order.objects.get(order_id=order.order_id), checked, user), False
    OrderLine.objects.bulk_create(
        OrderLine(
            order=order,
            sku=line.sku,
            name=line.name,
            quantity=line.quantity,
            unit_price=line.unit_price,
            line_total=line.total,
        )
        for line in checked.lines
    )
    return order, True


COMPARED = {
    "user_id": "customer_ref",
    "email": "email",
    "currency": "currency",
    "total_amount": "total_amount",
    "ship_name": "ship_name",
    "ship_line1": "ship_line1",
    "ship_city": "ship_city",
    "ship_postcode": "ship_postcode",
    "ship_country": "ship_country",
    "card_token": "card_token",
}


def _same(known: Order, checked: CheckedOrder, user: User | None) -> Order:
    """The order already stored. Raises OrderConflict naming what differs."""
    if known.user_id != (None if user is None else user.pk):
        # Somebody else's: not a word about what is in it.
        raise OrderConflict(known.order_id, ("order_id",))
    differing = [name for name, column in COMPARED.items() if getattr(known, column) != getattr(checked, column)]
    stored = dict(OrderLine.objects.filter(order=known).values_list("sku", "quantity"))
    if stored != {line.sku: line.quantity for line in checked.lines}:
        differing.append("items")
    if differing:
        raise OrderConflict(known.order_id, tuple(differing))
    return known
