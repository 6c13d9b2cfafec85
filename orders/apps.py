from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class OrdersConfig(AppConfig):
    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from orders.order_processing import ORDER_SAGA
        from orders.webhooks import delivery, outbox
        from sagas import chores, notices, register

        register(ORDER_SAGA)
        notices.listen(outbox.note)
        chores.register(delivery.DELIVER, waits=delivery.is_waiting)
        # After each migration, and not once: a database that was emptied needs its roles again.
        post_migrate.connect(make_roles, sender=self, dispatch_uid="orders.make_roles")


def make_roles(using: str, **kwargs: Any) -> None:
    """The groups of agents and supervisors, who may look at everything in the admin; supervisors also keep products.

    What else they may do is said in orders/roles.py, by role.
    """
    from django.contrib.auth.models import Group, Permission

    from orders.roles import GROUPS, SUPERVISOR

    looking = Permission.objects.using(using).filter(
        content_type__app_label__in=["orders", "sagas", "django_q"], codename__startswith="view_"
    )
    products = Permission.objects.using(using).filter(
        content_type__app_label="orders", codename__in=["add_product", "change_product"]
    )
    for name in GROUPS:
        group, _ = Group.objects.using(using).get_or_create(name=name)
        group.permissions.add(*looking)
        if name == SUPERVISOR:
            group.permissions.add(*products)
