"""Placing an order on the page: a form, a review of what will happen and what it costs, and only then the order."""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from orders import rates, selectors
from orders.demo import BY_NAME, SCENARIOS, order_fields
from orders.effect_words import placing
from orders.exceptions import InvalidOrder, OrderConflict, TooOften
from orders.forms import CUSTOMER, OrderForm
from orders.intake import CheckedOrder, check_order
from orders.login import too_often
from orders.models import User
from orders.money import quantize
from orders.order_processing import ORDER_SAGA
from orders.roles import actor_of, is_staff
from orders.services import place_order
from sagas.plans import Move, Plan
from sagas.twins import command_of, curl_of, word_of

UNDONE = "Until the carrier has the parcel you can cancel the order: all of it is undone then, and the money goes back."


@never_cache
@require_http_methods(["GET", "POST"])
@login_required
def order_new(request: HttpRequest) -> HttpResponse:
    """orders/order_form.html, in demo mode with a scenario to watch; sent, the review; `confirmed`, the order."""
    if request.method == "GET":
        return _form(request, OrderForm.blank(_defaults(request), staff=is_staff(request.user)))
    form = OrderForm.typed(request.POST, staff=is_staff(request.user))
    if "change" in request.POST:
        return _form(request, form)
    fields = _fields(request, form)
    try:
        if "confirmed" not in request.POST:
            return _review(request, form, check_order(order_id=form.order_id, **fields))
        rates.count("order", f"user:{request.user.pk}", settings.ORDER_RATE)
        order, created = place_order(
            order_id=form.order_id,
            user=cast(User, request.user),
            actor=actor_of(request.user),
            scenario=form.scenario if settings.DEMO else "",
            **fields,
        )
    except TooOften as error:
        return too_often(request, error)
    except InvalidOrder as error:
        form.take_faults(error)
        return _form(request, form, status=400)
    except OrderConflict:
        messages.error(request, f"Order {form.order_id} was placed already, with other contents. Here is a new form.")
        return redirect("order_new")
    if not created:
        messages.info(request, "This order was placed already: here it is.")
    return redirect("order_detail", order.order_id)


def _fields(request: HttpRequest, form: OrderForm) -> dict[str, Any]:
    """What the order is made of: what was typed, or what the scenario takes."""
    values = dict(form.values)
    customer = values.pop(CUSTOMER, "").strip() or request.user.get_username()
    fields: dict[str, Any] = {**values, "items": form.items(), "currency": settings.SHOP_CURRENCY}
    fields["total_amount"] = form.shown_total or None
    scenario = BY_NAME.get(form.scenario) if settings.DEMO else None
    if scenario is not None:
        fields |= {name: value for name, value in order_fields(scenario).items() if name != "scenario"}
        fields["total_amount"] = None
    else:
        form.scenario = ""
    return {**fields, "customer_ref": customer}


def _form(request: HttpRequest, form: OrderForm, *, status: int = 200) -> HttpResponse:
    context = {
        "section": "new",
        "form": form,
        "products": selectors.products_for_sale(),
        "scenarios": [s for s in SCENARIOS if not s.cancel_when_completed] if settings.DEMO else [],
        "currency": settings.SHOP_CURRENCY,
    }
    return render(request, "orders/order_form.html", context, status=status)


def _review(request: HttpRequest, form: OrderForm, order: CheckedOrder) -> HttpResponse:
    """orders/order_review.html: the same fields, unseen, with the total that is agreed to."""
    form.shown_total = str(quantize(order.total_amount, order.currency))
    words = placing(order)
    moves = [Move(title=step.display, what=words[step.name], when="") for step in ORDER_SAGA.steps]
    context = {
        "section": "new",
        "order": order,
        "scenario": BY_NAME.get(form.scenario),
        "fields": form.sent(),
        "plan": Plan(moves=moves, end=UNDONE),
        **_twins(request, form, order),
    }
    return render(request, "orders/order_review.html", context)


def _twins(request: HttpRequest, form: OrderForm, order: CheckedOrder) -> dict[str, str]:
    """The curl line, and for staff the command, that place this very order; of a scenario there are none."""
    if form.scenario:
        return {}
    body = {
        "order_id": form.order_id,
        "user_id": order.customer_ref,
        "items": [{"sku": line.sku, "quantity": line.quantity} for line in order.lines],
        "total_amount": {"amount": form.shown_total, "currency": order.currency},
        "email": order.email,
        "shipping_address": {
            "name": order.ship_name,
            "line1": order.ship_line1,
            "city": order.ship_city,
            "postcode": order.ship_postcode,
            "country": order.ship_country,
        },
        "payment": {"token": "$CARD_TOKEN"},  # a token is for the gateway alone, and in no page
    }
    word = word_of(body).replace("$CARD_TOKEN", """'"$CARD_TOKEN"'""")
    command = f"printf %s {word} | {command_of('saga', 'start', 'order', '-')}" if is_staff(request.user) else ""
    key = f"Idempotency-Key: {form.order_id}"
    return {"command": command, "curl": curl_of(request, reverse("api-orders"), word, header=key)}


def _defaults(request: HttpRequest) -> dict[str, str]:
    """In a demo the address is filled in, so that an order is a few clicks away."""
    user = request.user
    known = {"email": getattr(user, "email", ""), "ship_name": user.get_full_name()}  # type: ignore[union-attr]
    return {**settings.ORDER_DEFAULTS, **{k: v for k, v in known.items() if v}} if settings.DEMO else known
