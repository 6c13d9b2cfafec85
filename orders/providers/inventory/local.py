"""Stock kept in our own tables: every effect commits with its barrier row, so that it happens exactly once."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from orders.models import Reservation, StockItem, StockMovement
from orders.providers.base import Line, Reserved, ReservedItem
from orders.providers.errors import Declined
from sagas import StepRefused
from sagas.barrier import first_time, undo_once

PROVIDER = "local stock"


class LocalInventory:
    """The default inventory service."""

    def reserve(self, lines: Sequence[Line], *, key: str) -> Reserved:
        """Hold all lines or none; equal SKUs are summed first. Raises Declined."""
        wanted: dict[str, int] = {}
        for line in lines:
            wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
        held: list[dict[str, Any]] = []
        try:
            is_new = first_time(key, lambda: held.extend(_hold_all(wanted, key)))
        except StepRefused as error:
            raise Declined(str(error), provider=PROVIDER, operation="reserve", code=error.code) from error
        if is_new:
            return _reserved(held)
        standing = self.find_reservation(key=key)
        if standing is None:
            raise Declined(
                "This was held, and given back since.", provider=PROVIDER, operation="reserve", code="already_undone"
            )
        return standing

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
        ours = Reservation.objects.filter(pk=row.pk, status=Reservation.Status.HELD)
        if ours.update(status=Reservation.Status.SHIPPED):
            _note(_move(row.stock_id, StockMovement.Kind.SHIP, -row.quantity, -row.quantity, key, actor))


def _hold_all(wanted: Mapping[str, int], key: str) -> list[dict[str, Any]]:
    stocks = dict(StockItem.objects.filter(product__sku__in=wanted).values_list("product__sku", "pk"))
    for sku in wanted:
        if sku not in stocks:
            raise Declined(f"There is no stock of {sku}.", provider=PROVIDER, operation="reserve", code="unknown_sku")
    # In the order of the stock's keys, here and in _held: two orders that share two products, each having locked the
    # one that the other wants next, would otherwise wait for one another until the database kills one of them.
    in_order = sorted(wanted, key=stocks.__getitem__)
    moved = [_hold(stocks[sku], sku, wanted[sku], key) for sku in in_order]
    held = [
        Reservation(
            reservation_id=f"RES-{secrets.token_hex(5).upper()}", key=key, stock_id=stocks[sku], quantity=wanted[sku]
        )
        for sku in in_order
    ]
    StockMovement.objects.bulk_create(moved)
    Reservation.objects.bulk_create(held)
    items = zip(in_order, held, strict=True)
    return [{"sku": sku, "quantity": row.quantity, "reservation_id": row.reservation_id} for sku, row in sorted(items)]


def _hold(stock: int, sku: str, quantity: int, key: str) -> StockMovement:
    moved = _move(stock, StockMovement.Kind.RESERVE, 0, quantity, key, "engine")
    if moved is None:
        raise Declined(
            f"There are not {quantity} of {sku} in stock.",
            provider=PROVIDER,
            operation="reserve",
            code="insufficient_inventory",
        )
    return moved


def _release_all(action_key: str, key: str) -> list[dict[str, Any]]:
    given_back = _rows(action_key, Reservation.Status.HELD)
    for row in _held(action_key):
        ours = Reservation.objects.filter(pk=row.pk, status=Reservation.Status.HELD)
        if ours.update(status=Reservation.Status.RELEASED, released_at=timezone.now()):
            _note(_move(row.stock_id, StockMovement.Kind.RELEASE, 0, -row.quantity, key, "engine"))
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


def _move(
    stock: int, kind: StockMovement.Kind, on_hand: int, allocated: int, key: str, actor: str
) -> StockMovement | None:
    """Change the counters unless more would be promised than there is: two buyers of the last piece cannot both pass.

    One statement decides and tells what came of it. The movement is returned, and not stored yet.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE orders_stockitem SET on_hand = on_hand + %s, allocated = allocated + %s "
            "WHERE id = %s AND allocated + %s <= on_hand + %s RETURNING on_hand, allocated",
            [on_hand, allocated, stock, allocated, on_hand],
        )
        after = cursor.fetchone()
    if after is None:
        return None
    return StockMovement(
        stock_id=stock,
        kind=kind,
        delta_on_hand=on_hand,
        delta_allocated=allocated,
        on_hand_after=after[0],
        allocated_after=after[1],
        key=key,
        actor=actor,
    )


def _note(moved: StockMovement | None) -> None:
    """Store a movement that gives something back, or takes what was promised: nothing stands in its way."""
    assert moved is not None  # noqa: S101
    moved.save()


def _reserved(items: Sequence[Mapping[str, Any]]) -> Reserved:
    return Reserved(
        items=tuple(
            ReservedItem(sku=item["sku"], quantity=item["quantity"], reservation_id=item["reservation_id"])
            for item in items
        )
    )
