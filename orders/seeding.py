"""Fills a shop to look at: products with stock, people, an API key. Twice is once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import transaction
from django.utils import timezone

from orders.api_keys import create_key, key_of
from orders.demo import CUSTOMER, LOGINS, PRODUCTS, SCENARIOS, DemoLogin, DemoProduct, Scenario, order_fields
from orders.models import ApiKey, Order, Product, Scope, StockItem, User
from orders.roles import GROUPS
from orders.services import place_order, receive_stock

ACTOR = "demo"
KEY_OWNER = "supervisor"


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """What the seeding made, or found."""

    products: int
    logins: tuple[DemoLogin, ...]
    api_key: str


@transaction.atomic
def seed() -> Seeded:
    """Make whatever is missing of the demo's shop; what is there stays as people have changed it."""
    for product in PRODUCTS:
        _seed_product(product)
    for group in GROUPS:
        Group.objects.get_or_create(name=group)
    for login in LOGINS:
        _seed_login(login)
    return Seeded(products=len(PRODUCTS), logins=LOGINS, api_key=_api_key())


def place_scenario(scenario: Scenario) -> Order:
    """The demo's order of that scenario, placed unless it is there."""
    user = User.objects.get(username=CUSTOMER)
    order, _ = place_order(order_id=scenario.order_id, user=user, actor=ACTOR, **order_fields(scenario))
    return order


def place_all(scenarios: Iterable[Scenario] = SCENARIOS) -> list[Order]:
    """One order per scenario."""
    return [place_scenario(scenario) for scenario in scenarios]


def _seed_product(item: DemoProduct) -> None:
    product, _ = Product.objects.get_or_create(
        sku=item.sku,
        defaults={
            "name": item.name,
            "price": item.price,
            "currency": "EUR",
            "weight_grams": item.weight_grams,
        },
    )
    _, created = StockItem.objects.get_or_create(product=product)
    if created:
        receive_stock(sku=item.sku, quantity=item.stock, actor=ACTOR, reason="First delivery")


def _seed_login(login: DemoLogin) -> None:
    user, created = User.objects.get_or_create(
        username=login.username,
        defaults={
            "first_name": login.first_name,
            "last_name": login.last_name,
            "email": login.email,
            "is_staff": bool(login.group),
        },
    )
    if created:
        user.set_password(login.password)
        user.save(update_fields=["password"])
    if login.group:
        user.groups.add(Group.objects.get(name=login.group))


def _api_key() -> str:
    """The demo's key. The database has only its hash, so that the key itself is kept in a file of the owner's."""
    kept = Path(settings.VAR_DIR) / "demo_api_key"
    if kept.exists():
        text = kept.read_text().strip()
        known = key_of(text)
        if known is not None and known.is_live(timezone.now()):
            return text
    name = next(name for name in _key_names() if not ApiKey.objects.filter(name=name).exists())
    owner = User.objects.get(username=KEY_OWNER)
    _, text = create_key(user=owner, name=name, scopes=list(Scope), created_by=ACTOR)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.touch(mode=0o600)
    kept.write_text(f"{text}\n")
    return text


def _key_names() -> Iterator[str]:
    """A name is taken for good, also by a key whose text is lost: the history uses it."""
    yield "demo"
    for number in count(2):
        yield f"demo {number}"
