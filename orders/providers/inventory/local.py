"""Stock kept in our own tables: every effect commits with its barrier row, so that it happens exactly once."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from orders.models import Reservation, StockItem, StockMovement
from orders.providers.base import Line, Reserved, ReservedItem
from orders.providers.errors import Declined
from sagas import StepRefused
from sagas.barrier import do_once, undo_once

PROVIDER = "local stock"


class LocalInventory:
    """The default inventory service."""

    def reserve(self, lines: Sequence[Line], *, key: str) -> Reserved:
        """Hold all lines or none; equal SKUs are summed first. Raises Declined."""
        wanted: dict[str, int] = {}
        for line in lines:
            wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
        try:
            result = do_once(key, lambda: {"items": _hold_all(wanted, key)})
        except StepRefused as error:
            raise Declined(str(error), provider=PROVIDER, operation="reserve", code=error.code) from error
        return _reserved(result["items"])

    def find_reservation(self, *, key: str) -> Reserved | None:
        """What is held under this key, or was shipped from it; None if nothing is."""
        held = _rows(key, Reservation.Status.HELD, Reservation.Status.SHIPPED)
        return _reserved(held) if held else None

    def release(self, *, action_key: str, key: str) -> Reserved:
        """Give back what `action_key` holds; no items if it holds nothing."""
        result = undo_once(key, action_key, lambda: {"items": _release_all(action_key, key)}, {"items": []})
        return _reserved(result["items"])


@transaction.atomic
def ship_reserved(*, key: str, actor: str) -> None:
    """The goods held under this key have left: they are neither on hand nor promised any more."""
    for row in _held(key):
        moved = Reservation.objects.filter(pk=row.pk, status=Reservation.Status.HELD)
        if moved.update(status=Reservation.Status.SHIPPED):
            _move(row.stock_id, StockMovement.Kind.SHIP, -row.quantity, -row.quantity, key, actor)


def _hold_all(wanted: Mapping[str, int], key: str) -> list[dict[str, Any]]:
    stocks = dict(StockItem.objects.filter(product__sku__in=wanted).values_list("product__sku", "pk"))
    for sku in wanted:
        if sku not in stocks:
            raise Declined(f"There is no stock of {sku}.", provider=PROVIDER, operation="reserve", code="unknown_sku")
    # In the order of the stock's keys, here and in _held: two orders that share two products, each having locked the
    # one that the other wants next, would otherwise wait for one another until the database kills one of them.
    items = [_hold(stocks[sku], sku, wanted[sku], key) for sku in sorted(wanted, key=stocks.__getitem__)]
    return sorted(items, key=lambda item: str(item["sku"]))


def _hold(stock: int, sku: str, quantity: int, key: str) -> dict[str, Any]:
    """One conditional UPDATE decides: two buyers of the last piece cannot both pass it."""
    free = StockItem.objects.filter(pk=stock, allocated__lte=F("on_hand") - quantity)
    if not free.update(allocated=F("allocated") + quantity):
        raise Declined(
            f"There are not {quantity} of {sku} in stock.",
            provider=PROVIDER,
            operation="reserve",
            code="insufficient_inventory",
        )
    _note(stock, StockMovement.Kind.RESERVE, 0, quantity, key, "engine")
    row = Reservation.objects.create(
        reservation_id=f"RES-{secrets.token_hex(5).upper()}", key=key, stock_id=stock, quantity=quantity
    )
    return {"sku": sku, "quantity": quantity, "reservation_id": row.reservation_id}


def _release_all(action_key: str, key: str) -> list[dict[str, Any]]:
    given_back = _rows(action_key, Reservation.Status.HELD)
    for row in _held(action_key):
        moved = Reservation.objects.filter(pk=row.pk, status=Reservation.Status.HELD)
        if moved.update(status=Reservation.Status.RELEASED, released_at=timezone.now()):
            _move(row.stock_id, StockMovement.Kind.RELEASE, 0, -row.quantity, key, "engine")
    return given_back


def _held(key: str) -> QuerySet[Reservation]:
    return Reservation.objects.filter(key=key, status=Reservation.Status.HELD).order_by("stock_id")


def _rows(key: str, *statuses: Reservation.Status) -> list[dict[str, Any]]:
    rows = Reservation.objects.filter(key=key, status__in=statuses)
    return [
        {"sku": sku, "quantity": quantity, "reservation_id": reservation_id}
        # Sorted here: a database sorts text by its own language's rules.
        for sku, quantity, reservation_id in sorted(
            rows.values_list("stock__product__sku", "quantity", "reservation_id")
        )
    ]


def _move(stock: int, kind: StockMovement.Kind, on_hand: int, allocated: int, key: str, actor: str) -> None:
    StockItem.objects.filter(pk=stock).update(on_hand=F("on_hand") + on_hand, allocated=F("allocated") + allocated)
    _note(stock, kind, on_hand, allocated, key, actor)


def _note(stock: int, kind: StockMovement.Kind, on_hand: int, allocated: int, key: str, actor: str) -> None:
    now = StockItem.objects.get(pk=stock)
    StockMovement.objects.create(
        stock=now,
        kind=kind,
        delta_on_hand=on_hand,
        delta_allocated=allocated,
        on_hand_after=now.on_hand,
        allocated_after=now.allocated,
        key=key,
        actor=actor,
    )


def _reserved(items: Sequence[Mapping[str, Any]]) -> Reserved:
    return Reserved(
        items=tuple(
            ReservedItem(sku=item["sku"], quantity=item["quantity"], reservation_id=item["reservation_id"])
            for item in items
        )
    )
