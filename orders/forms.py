"""The order form: reads what was typed, and hands it on as it came. What an order must be is checked in intake.py."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.http import QueryDict

from orders.exceptions import FieldError, InvalidOrder
from orders.intake import new_order_id

TEXTS = ("email", "ship_name", "ship_line1", "ship_city", "ship_postcode", "ship_country", "card_token")
CUSTOMER = "user_id"
"""Whom the order is for, in the shop's own words: asked of staff alone, who may place it for somebody else."""
LABELS = {
    "items": "Items",
    "email": "E-mail",
    "ship_name": "Name",
    "ship_line1": "Street",
    "ship_city": "City",
    "ship_postcode": "Postcode",
    "ship_country": "Country",
    "card_token": "Card",
    "total_amount": "Total",
    "order_id": "Order number",
    CUSTOMER: "Customer",
}
AUTOCOMPLETE = {
    "email": "email",
    "ship_name": "name",
    "ship_line1": "address-line1",
    "ship_city": "address-level2",
    "ship_postcode": "postal-code",
    "ship_country": "country",
    "card_token": "off",
    CUSTOMER: "off",
}
HINTS = {
    "ship_country": "Two letters, for example DE.",
    "card_token": "The gateway's token, for example tok_visa. Never a card's number.",
    CUSTOMER: "Your reference of whom it is for; left empty, it is under your name.",
}
WHOLE = frozenset({"items", "total_amount", "currency"})
"""Faults of all lines together."""
LINE = re.compile(r"line-(\d{1,3})-sku")


@dataclass(frozen=True, kw_only=True)
class FormLine:
    """A line as it was typed."""

    number: int
    sku: str
    quantity: str
    fault: str = ""


@dataclass(frozen=True, kw_only=True)
class FormField:
    """A text field as the page shows it."""

    name: str
    label: str
    value: str
    autocomplete: str
    hint: str
    fault: str


@dataclass(kw_only=True)
class OrderForm:
    """What the page shows: values, lines and faults by field."""

    order_id: str
    values: dict[str, str]
    lines: list[FormLine]
    scenario: str = ""
    shown_total: str = ""
    faults: list[FieldError] = field(default_factory=list)

    @classmethod
    def blank(cls, defaults: Mapping[str, str], *, staff: bool) -> OrderForm:
        """A fresh form. Its number makes a double click one order."""
        return cls(
            order_id=new_order_id(),
            values={name: defaults.get(name, "") for name in _names(staff)},
            lines=[FormLine(number=0, sku="", quantity="1")],
        )

    @classmethod
    def typed(cls, data: QueryDict, *, staff: bool) -> OrderForm:
        """The form as it was sent."""
        numbers = sorted(int(match[1]) for name in data if (match := LINE.fullmatch(name)))
        lines = [
            FormLine(number=n, sku=data.get(f"line-{n}-sku", ""), quantity=data.get(f"line-{n}-quantity", ""))
            for n in numbers
        ]
        return cls(
            order_id=data.get("order_id", ""),
            values={name: data.get(name, "") for name in _names(staff)},
            lines=lines or [FormLine(number=0, sku="", quantity="1")],
            scenario=data.get("scenario", ""),
            shown_total=data.get("shown_total", ""),
        )

    def items(self) -> list[dict[str, Any]]:
        """The lines that name a product, as place_order takes them; a quantity that is no number stays text."""
        return [{"sku": line.sku, "quantity": _number(line.quantity)} for line in self._filled()]

    def sent(self) -> list[tuple[str, str]]:
        """(name, value) of all that was sent: for a page that sends it again."""
        lines = [
            pair
            for line in self._filled()
            for pair in ((f"line-{line.number}-sku", line.sku), (f"line-{line.number}-quantity", line.quantity))
        ]
        rest = [("order_id", self.order_id), ("scenario", self.scenario), ("shown_total", self.shown_total)]
        return [*rest, *self.values.items(), *lines]

    def spare_lines(self) -> list[FormLine]:
        """Two more, for whoever has no scripts to add one with."""
        after = max((line.number for line in self.lines), default=0) + 1
        return [FormLine(number=after + n, sku="", quantity="1") for n in range(2)]

    def take_faults(self, error: InvalidOrder) -> None:
        """Keep what was wrong, so that the page can say it beside each field and each line."""
        self.faults = list(error.errors)
        if any(fault.code == "card_number" for fault in self.faults):
            self.values["card_token"] = ""  # the page may be kept or cached; a card's number must not be in it
        for position, line in enumerate(self._filled()):
            said = [fault.message for fault in self.faults if f"{fault.field}.".startswith(f"items.{position}.")]
            self.lines[self.lines.index(line)] = replace(line, fault=" ".join(said))

    def _filled(self) -> list[FormLine]:
        return [line for line in self.lines if line.sku]

    def fault_of(self, name: str) -> str:
        """What is wrong with a field, in words."""
        return " ".join(fault.message for fault in self.faults if fault.field.partition(".")[0] == name)

    def item_fault(self) -> str:
        """What is wrong with the lines as a whole, in words: none at all, too many, another total than was shown."""
        return " ".join(fault.message for fault in self.faults if fault.field in WHOLE)

    def fields(self) -> list[FormField]:
        """The text fields as the page shows them."""
        return [
            FormField(
                name=name,
                label=LABELS[name],
                value=self.values[name],
                autocomplete=AUTOCOMPLETE[name],
                hint=HINTS.get(name, ""),
                fault=self.fault_of(name),
            )
            for name in self.values
        ]

    def summary(self) -> list[tuple[str, str, str]]:
        """(id on the page to go to, or nothing; its label; what is wrong), in the order found."""
        return [
            (self._place(fault.field), LABELS.get(name, name), fault.message)
            for fault in self.faults
            for name in [fault.field.partition(".")[0]]
        ]

    def _place(self, name: str) -> str:
        if name in WHOLE:
            return "id_items"
        if not name.startswith("items."):
            return f"id_{name}" if name in self.values else ""
        position, _, part = name.removeprefix("items.").partition(".")
        filled = self._filled()
        if int(position) >= len(filled):
            return "id_items"  # a scenario's own line, which nobody typed
        return f"id_line-{filled[int(position)].number}-{'sku' if part == 'sku' else 'quantity'}"


def _names(staff: bool) -> tuple[str, ...]:
    return (CUSTOMER, *TEXTS) if staff else TEXTS


def _number(text: str) -> int | str:
    stripped = text.strip()
    return int(stripped) if re.fullmatch(r"-?[0-9]{1,20}", stripped) else stripped
