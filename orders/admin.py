"""The shop's rows: to be read, searched and followed. Orders are acted on through the services, stock is changed by a
movement with a reason, and only products are edited."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from orders import admin_keys, admin_webhooks, models
from orders.exceptions import HandOverRefused, InvalidOrder, InvalidStock, OrderNotCancellable
from orders.money import format_money
from orders.roles import Act, actor_of, can
from orders.services import cancel_order, correct_stock, hand_over, receive_stock
from sagas.admin_large import NewestValuesFilter
from sagas.admin_tools import NONE, ReadOnlyAdmin, ReadOnlyLines, admin_link, ask_reason, list_link, page_link

__all__ = ["admin_keys", "admin_webhooks"]  # each registers its own

admin.site.site_header = admin.site.site_title = "Order saga, admin"
admin.site.index_title = "What is stored"


class OrderLines(ReadOnlyLines):
    model = models.OrderLine
    fields = readonly_fields = ("sku", "name", "quantity", "unit_price", "line_total")


class OrderMessages(ReadOnlyLines):
    model = models.SentMessage
    fields = readonly_fields = ("kind", "recipient", "subject", "status", "email_id", "sent_at")
    show_change_link = True


@admin.register(models.Order)
class OrderAdmin(ReadOnlyAdmin):
    list_display = ("order_id", "customer_ref", "email", "total", "run", "placed_by", "placed_at")
    list_filter = ("currency", "scenario", "placed_at")
    date_hierarchy = "placed_at"
    list_select_related = ("user",)
    ordering = ("-placed_at", "-id")
    exact_search = ("order_id", "customer_ref", "email__iexact", "run_id")
    search_help_text = "An order's number, a customer, an e-mail address or a run's id, as a whole."
    inlines = (OrderLines, OrderMessages)
    exclude = ("card_token", "run_id")
    readonly_fields = ("page", "total", "run", "money", "parcel")
    actions = ("cancel_orders", "hand_over_orders")

    @admin.display(description="total", ordering="total_amount")
    def total(self, order: models.Order) -> str:
        return format_money(order.total_amount, order.currency)

    @admin.display(description="page")
    def page(self, order: models.Order) -> SafeString | str:
        return page_link("order_detail", order.order_id, "Open the order's page")

    @admin.display(description="run")
    def run(self, order: models.Order) -> SafeString | str:
        if order.run_id is None:
            return NONE
        address = reverse("admin:sagas_sagarun_change", args=[order.run_id])
        return format_html('<a href="{}">{}</a>', address, order.run_id)

    @admin.display(description="payment")
    def money(self, order: models.Order) -> SafeString | str:
        return admin_link(models.Payment.objects.filter(order=order).first())

    @admin.display(description="parcel")
    def parcel(self, order: models.Order) -> SafeString | str:
        return admin_link(models.Shipment.objects.filter(order=order).first())

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return can(request.user, Act.CANCEL)

    def has_hand_over_permission(self, request: HttpRequest) -> bool:
        return can(request.user, Act.HAND_OVER)

    @admin.action(description="Cancel: undo everything …", permissions=["cancel"])
    def cancel_orders(self, request: HttpRequest, chosen: QuerySet[models.Order]) -> HttpResponse | None:
        def cancel(order: models.Order, reason: str) -> str:
            cancel_order(order_id=order.order_id, actor=actor_of(request.user), reason=reason)
            return "everything is being undone."

        return ask_reason(
            self,
            request,
            chosen,
            action="cancel_orders",
            title="Cancel",
            do=cancel,
            refused=(OrderNotCancellable, InvalidOrder),
        )

    @admin.action(description="Note that the carrier has taken the parcels …", permissions=["hand_over"])
    def hand_over_orders(self, request: HttpRequest, chosen: QuerySet[models.Order]) -> HttpResponse | None:
        def note(order: models.Order, reason: str) -> str:
            hand_over(order_id=order.order_id, actor=actor_of(request.user), reason=reason)
            return "the parcel is handed over."

        return ask_reason(
            self,
            request,
            chosen,
            action="hand_over_orders",
            title="Note as handed over",
            do=note,
            refused=(HandOverRefused, InvalidOrder),
        )


class OrderLinkMixin:
    """For rows that hang on an order."""

    @admin.display(description="order")
    def order_link(self, row: Any) -> SafeString | str:
        return admin_link(row.order)


class Operations(ReadOnlyLines):
    model = models.PaymentOperation
    fields = readonly_fields = ("kind", "amount", "status", "provider_id", "code", "message", "created_at")
    show_change_link = True


@admin.register(models.Payment)
class PaymentAdmin(OrderLinkMixin, ReadOnlyAdmin):
    list_display = ("id", "order_link", "charged", "refunded", "currency", "created_at")
    list_filter = ("currency", "created_at")
    date_hierarchy = "created_at"
    list_select_related = ("order",)
    ordering = ("-id",)
    exact_search = ("order__order_id", "operations__provider_id")
    search_help_text = "An order's number, or a transaction's or refund's id, as a whole."
    readonly_fields = ("order_link",)
    inlines = (Operations,)


@admin.register(models.PaymentOperation)
class PaymentOperationAdmin(ReadOnlyAdmin):
    list_display = ("id", "order_link", "kind", "amount", "status", "provider_id", "code", "created_at")
    list_filter = ("kind", "status", "code", "created_at")
    date_hierarchy = "created_at"
    list_select_related = ("payment__order",)
    ordering = ("-id",)
    exact_search = ("payment__order__order_id", "provider_id", "key")
    search_help_text = "An order's number, a transaction's or refund's id, or a key, as a whole."
    readonly_fields = ("order_link",)

    @admin.display(description="order")
    def order_link(self, operation: models.PaymentOperation) -> SafeString | str:
        return admin_link(operation.payment.order)


@admin.register(models.Shipment)
class ShipmentAdmin(OrderLinkMixin, ReadOnlyAdmin):
    list_display = ("reference", "order_link", "status", "shipment_id", "tracking_number", "carrier", "created_at")
    list_filter = ("status", "carrier", "created_at")
    date_hierarchy = "created_at"
    list_select_related = ("order",)
    ordering = ("-id",)
    exact_search = ("order__order_id", "shipment_id", "tracking_number", "reference")
    search_help_text = "An order's number, a shipment's id, a tracking number or a reference, as a whole."
    readonly_fields = ("order_link",)


@admin.register(models.SentMessage)
class SentMessageAdmin(OrderLinkMixin, ReadOnlyAdmin):
    list_display = ("id", "order_link", "kind", "recipient", "status", "email_id", "sent_at")
    list_filter = ("kind", "status", "sent_at")
    date_hierarchy = "created_at"
    list_select_related = ("order",)
    ordering = ("-id",)
    exact_search = ("order__order_id", "email_id", "key")
    search_help_text = "An order's number, a mail's id or a key, as a whole."
    readonly_fields = ("order_link",)


@admin.register(models.MailDelivery)
class MailDeliveryAdmin(ReadOnlyAdmin):
    """What became of mails."""

    list_display = ("id", "message", "kind", "note", "heard_at")
    list_filter = ("kind", "heard_at")
    list_select_related = ("message",)
    ordering = ("-id",)
    exact_search = ("message__key", "message__email_id")
    search_help_text = "A mail's id or key, as a whole."


@admin.register(models.Product)
class ProductAdmin(admin.ModelAdmin[models.Product]):
    """Products are edited here, by those Django lets; orders keep the name and price of their moment."""

    list_display = ("sku", "name", "price", "currency", "is_active", "stock_link")
    list_filter = ("is_active", "currency")
    list_select_related = ("stock",)
    search_fields = ("sku", "name")
    ordering = ("sku",)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description="stock")
    def stock_link(self, product: models.Product) -> SafeString | str:
        return admin_link(getattr(product, "stock", None))


class MovementForm(forms.Form):
    """One change of a stock item."""

    kind = forms.ChoiceField(
        choices=[("receive", "Goods came in"), ("correct", "The count differs")],
        help_text="A count that differs may be negative: pieces that are not there.",
    )
    quantity = forms.IntegerField(min_value=-1_000_000, max_value=1_000_000, label="Pieces")
    reason = forms.CharField(max_length=500, help_text="Kept with the movement, with your name.")


@admin.register(models.StockItem)
class StockItemAdmin(ReadOnlyAdmin):
    list_display = ("sku", "on_hand", "allocated", "free", "movements")
    list_select_related = ("product",)
    ordering = ("product__sku",)
    exact_search = ("product__sku",)
    search_help_text = "A SKU, as a whole."
    readonly_fields = ("product_link", "free", "change_stock", "movements")
    exclude = ("product",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return [name for name in fields if name != "change_stock" or can(request.user, Act.STOCK)]

    def get_urls(self) -> list[URLPattern]:
        move = path("<int:stock_id>/move/", self.admin_site.admin_view(self.move), name="orders_stockitem_move")
        return [move, *super().get_urls()]

    @admin.display(description="SKU", ordering="product__sku")
    def sku(self, stock: models.StockItem) -> str:
        return stock.product.sku

    @admin.display(description="free")
    def free(self, stock: models.StockItem) -> int:
        return stock.available

    @admin.display(description="product")
    def product_link(self, stock: models.StockItem) -> SafeString | str:
        return admin_link(stock.product)

    @admin.display(description="movements")
    def movements(self, stock: models.StockItem) -> SafeString:
        return list_link(models.StockMovement, "stock__id__exact", stock.pk, "All movements")

    @admin.display(description="change")
    def change_stock(self, stock: models.StockItem) -> SafeString:
        address = reverse("admin:orders_stockitem_move", args=[stock.pk])
        return format_html('<a href="{}">Change it by a movement</a>', address)

    def move(self, request: HttpRequest, stock_id: int) -> HttpResponse:
        """The form that changes a stock item."""
        if not can(request.user, Act.STOCK):
            raise PermissionDenied
        stock = models.StockItem.objects.select_related("product").filter(pk=stock_id).first()
        if stock is None:
            return HttpResponseRedirect(reverse("admin:orders_stockitem_changelist"))
        form = MovementForm(request.POST or None)
        if form.is_valid() and self._moved(request, stock, form):
            return HttpResponseRedirect(reverse("admin:orders_stockitem_change", args=[stock.pk]))
        return TemplateResponse(
            request,
            "admin/orders/stockitem/move.html",
            {
                **self.admin_site.each_context(request),
                "title": f"Change the stock of {stock.product.sku}",
                "opts": self.model._meta,
                "stock": stock,
                "form": form,
            },
        )

    def _moved(self, request: HttpRequest, stock: models.StockItem, form: MovementForm) -> bool:
        about = {"sku": stock.product.sku, "actor": actor_of(request.user), "reason": form.cleaned_data["reason"]}
        quantity = form.cleaned_data["quantity"]
        try:
            if form.cleaned_data["kind"] == "receive":
                changed = receive_stock(quantity=quantity, **about)
            else:
                changed = correct_stock(difference=quantity, **about)
        except InvalidStock as error:
            form.add_error("quantity", str(error))
            return False
        except InvalidOrder as error:
            form.add_error("reason", error.errors[0].message)
            return False
        messages.success(request, f"{stock.product.sku}: {changed.on_hand} on hand, {changed.available} of them free.")
        return True


@admin.register(models.StockMovement)
class StockMovementAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "stock_link",
        "kind",
        "delta_on_hand",
        "delta_allocated",
        "on_hand_after",
        "allocated_after",
        "actor",
        "reason",
        "created_at",
    )
    list_filter = ("kind", "created_at")
    date_hierarchy = "created_at"
    list_select_related = ("stock__product",)
    ordering = ("-id",)
    exact_search = ("stock__product__sku", "key")
    search_help_text = "A SKU or a key, as a whole."
    readonly_fields = ("stock_link",)

    @admin.display(description="stock")
    def stock_link(self, movement: models.StockMovement) -> SafeString | str:
        return admin_link(movement.stock, movement.stock.product.sku)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "stock__id__exact" or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]


@admin.register(models.Reservation)
class ReservationAdmin(ReadOnlyAdmin):
    list_display = ("reservation_id", "stock_link", "quantity", "status", "created_at", "released_at")
    list_filter = ("status", "created_at")
    date_hierarchy = "created_at"
    list_select_related = ("stock__product",)
    ordering = ("-id",)
    exact_search = ("reservation_id", "key", "stock__product__sku")
    search_help_text = "A reservation's id, a key or a SKU, as a whole."
    readonly_fields = ("stock_link",)

    @admin.display(description="stock")
    def stock_link(self, reservation: models.Reservation) -> SafeString | str:
        return admin_link(reservation.stock, reservation.stock.product.sku)


@admin.register(models.SandboxCharge)
class SandboxChargeAdmin(ReadOnlyAdmin):
    list_display = ("transaction_id", "order_id", "amount", "refunded", "currency", "barred", "created_at")
    list_filter = ("barred", "currency", "created_at")
    ordering = ("-id",)
    exact_search = ("transaction_id", "key", "order_id")


@admin.register(models.SandboxRefund)
class SandboxRefundAdmin(ReadOnlyAdmin):
    list_display = ("refund_id", "charge_link", "amount", "created_at")
    list_filter = ("created_at",)
    list_select_related = ("charge",)
    ordering = ("-id",)
    exact_search = ("refund_id", "key", "charge__transaction_id")
    readonly_fields = ("charge_link",)

    @admin.display(description="charge")
    def charge_link(self, refund: models.SandboxRefund) -> SafeString | str:
        return admin_link(refund.charge)


@admin.register(models.SandboxParcel)
class SandboxParcelAdmin(ReadOnlyAdmin):
    list_display = ("reference", "shipment_id", "tracking_number", "status", "created_at")
    list_filter = ("status", "created_at")
    ordering = ("-id",)
    exact_search = ("reference", "shipment_id", "tracking_number")


@admin.register(models.SandboxMail)
class SandboxMailAdmin(ReadOnlyAdmin):
    list_display = ("email_id", "recipient", "created_at")
    list_filter = ("created_at",)
    ordering = ("-id",)
    exact_search = ("email_id", "key", "recipient")


@admin.register(models.OrderNote)
class OrderNoteAdmin(ReadOnlyAdmin):
    list_display = ("order", "author", "text", "created_at")
    list_select_related = ("order",)
    ordering = ("-id",)


@admin.register(models.OrderTag)
class OrderTagAdmin(ReadOnlyAdmin):
    list_display = ("tag", "order", "author", "created_at")
    list_select_related = ("order",)
    ordering = ("-id",)
    exact_search = ("tag", "order__order_id")
    search_help_text = "A tag or an order's number, as a whole."


@admin.register(models.OutsideEffect)
class OutsideEffectAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "provider", "kind", "remote_id", "is_barred", "asked_at")
    list_filter = ("provider", "kind")
    ordering = ("-id",)


@admin.register(models.ProviderChoice)
class ProviderChoiceAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "kind", "position", "name", "outcome", "why", "message")
    list_filter = ("kind", "name", "outcome")
    ordering = ("-id",)


@admin.register(models.InboundDelivery)
class InboundDeliveryAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "provider")
    list_filter = ("provider",)
    ordering = ("-id",)


@admin.register(models.InboundEvent)
class InboundEventAdmin(ReadOnlyAdmin):
    list_display = ("received_at", "provider", "kind", "about", "status", "message")
    list_filter = ("provider", "status")
    ordering = ("-id",)


@admin.register(models.RefusedRequest)
class RefusedRequestAdmin(ReadOnlyAdmin):
    """What programs were refused in the last week."""

    list_display = ("created_at", "status", "code", "actor", "method", "path", "order_page", "request_id")
    list_filter = (("status", NewestValuesFilter), "code", "created_at")
    date_hierarchy = "created_at"
    ordering = ("-id",)
    exact_search = ("request_id",)
    search_help_text = "The request_id of an answer, as a whole."
    readonly_fields = ("order_page", "problem")

    @admin.display(description="order")
    def order_page(self, refused: models.RefusedRequest) -> SafeString | str:
        """Of the number that the address named; there may be no such order."""
        return page_link("order_detail", refused.order_id, refused.order_id) if refused.order_id else NONE

    @admin.display(description="what it means")
    def problem(self, refused: models.RefusedRequest) -> SafeString | str:
        return page_link("api-problem", refused.code, refused.code)
