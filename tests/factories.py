"""One make_<noun>(**changes) each, valid by default."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.contrib.auth.models import Group, User

from orders.models import Order, Product, StockItem
from orders.services import place_order, receive_stock


def make_product(*, sku: str = "ITEM-001", price: str = "30.00", stock: int = 10, **changes: Any) -> Product:
    """A product with `stock` pieces of it, come in by a movement as they would."""
    fields = {"name": f"Product {sku}", "currency": "EUR", **changes}
    product = Product.objects.create(sku=sku, price=Decimal(price), **fields)
    StockItem.objects.create(product=product)
    if stock:
        receive_stock(sku=sku, quantity=stock, actor="engine", reason="first delivery")
    return product


def make_shop() -> tuple[Product, Product]:
    """The two products that the README's order of 99.99 is made of, ten of each."""
    return make_product(sku="ITEM-001", price="30.00"), make_product(sku="ITEM-002", price="39.99")


def make_user(*, username: str = "ada", role: str = "", **changes: Any) -> User:
    """A customer, or staff in the group `role`. The password is the name followed by -password."""
    user = User.objects.create_user(
        username=username, password=f"{username}-password", **{"is_staff": bool(role), **changes}
    )
    if role:
        user.groups.add(Group.objects.get(name=role))
    return user


def order_fields(**changes: Any) -> dict[str, Any]:
    """What place_order is given for the README's order: 2 × ITEM-001 and 1 × ITEM-002, 99.99 EUR."""
    return {
        "order_id": "ORD-123",
        "user": None,
        "customer_ref": "USER-456",
        "items": [{"sku": "ITEM-001", "quantity": 2}, {"sku": "ITEM-002", "quantity": 1}],
        "total_amount": Decimal("99.99"),
        "currency": "EUR",
        "email": "ada@example.com",
        "ship_name": "Ada Pereira",
        "ship_line1": "Torstraße 1",
        "ship_city": "Berlin",
        "ship_postcode": "10115",
        "ship_country": "DE",
        "card_token": "tok_visa",
        "actor": "customer:ada",
        **changes,
    }


def make_order(**changes: Any) -> Order:
    """A placed order, its run waiting for a worker. Wants make_shop() first."""
    order, _ = place_order(**order_fields(**changes))
    return order
