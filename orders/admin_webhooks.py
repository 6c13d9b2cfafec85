"""Who is told what by webhook: looked at by staff, and set right by whoever Django lets change endpoints."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from orders import models
from orders.roles import actor_of
from orders.webhooks import endpoints
from orders.webhooks.outbox import TYPES
from orders.webhooks.sending import BadAddress, check_url
from sagas.admin_tools import ReadOnlyAdmin


class EndpointForm(forms.ModelForm[models.WebhookEndpoint]):
    """What may be changed of an endpoint. Its secret is its owner's: they have it made anew by the API."""

    events = forms.MultipleChoiceField(
        choices=[(kind, kind) for kind in TYPES],
        widget=forms.CheckboxSelectMultiple,
        required=False,
        help_text="None: every event.",
    )

    class Meta:
        model = models.WebhookEndpoint
        fields = ("url", "events", "is_active")

    def clean_url(self) -> str:
        url = str(self.cleaned_data["url"])
        try:
            check_url(url)
        except BadAddress as error:
            raise forms.ValidationError(str(error)) from error
        return url


@admin.register(models.WebhookEndpoint)
class WebhookEndpointAdmin(ReadOnlyAdmin):
    list_display = ("url", "user", "is_active", "disabled_reason", "created_at")
    list_filter = ("is_active",)
    list_select_related = ("user",)
    ordering = ("-id",)
    form = EndpointForm
    fields = ("user", "url", "events", "is_active", "disabled_reason", "created_at", "deleted_at")
    readonly_fields = ("user", "disabled_reason", "created_at", "deleted_at")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        is_there = obj is None or getattr(obj, "deleted_at", None) is None
        return is_there and request.user.has_perm("orders.change_webhookendpoint")

    def save_model(self, request: HttpRequest, obj: models.WebhookEndpoint, form: Any, change: bool) -> None:
        """As its owner would by the API, and said to be somebody else's doing."""
        wanted = form.cleaned_data
        active = wanted["is_active"] if "is_active" in form.changed_data else None
        endpoints.change(obj, url=wanted["url"], events=wanted["events"], active=active, by=actor_of(request.user))


@admin.register(models.WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    list_display = ("event", "endpoint", "status", "attempts", "last_code", "last_error", "next_at", "delivered_at")
    list_filter = ("status",)
    list_select_related = ("event", "endpoint")
    ordering = ("-id",)
