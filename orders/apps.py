from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.signals import request_finished
from django.db.models.signals import post_migrate


class OrdersConfig(AppConfig):
    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from orders import checks, inbound, settling  # noqa: F401  (checks register themselves)
        from orders.order_processing import CAPTURING_SAGA, ORDER_SAGA, current_saga
        from orders.webhooks import delivery, outbox
        from sagas import chores, counting, notices, register

        # Both, whatever is chosen: a run goes on under the one it began with.
        for saga in (ORDER_SAGA, CAPTURING_SAGA):
            register(saga, is_variant=saga is not current_saga())
        notices.listen(outbox.note)
        chores.register(delivery.DELIVER, waits=delivery.is_waiting)
        chores.register(inbound.HEAR, waits=inbound.is_waiting)
        chores.register(settling.LOOK, waits=settling.is_waiting)
        # When the answer is out: nobody waits for it.
        request_finished.connect(counting.write_down_when_due, dispatch_uid="orders.counting")
        # After each migration, and not once: a database that was emptied needs its roles again.
        post_migrate.connect(make_roles, sender=self, dispatch_uid="orders.make_roles")


def make_roles(using: str, **kwargs: Any) -> None:
    """The groups of those who work here. All look at everything in the admin; supervisors also keep products.

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
