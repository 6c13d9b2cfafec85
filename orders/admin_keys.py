"""Keys, kept views and the admin's own log: who may call, what the team looks at, and who changed what here."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from orders import models
from orders.api_keys import KeyNameTaken, create_key, revoke_key
from orders.models import Scope
from orders.roles import actor_of
from sagas.admin_tools import ReadOnlyAdmin, ask_reason


class NewKeyForm(forms.ModelForm[models.ApiKey]):
    """What a new key is made of."""

    scopes = forms.MultipleChoiceField(
        choices=[(scope.value, scope.value) for scope in Scope], widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = models.ApiKey
        fields = ("user", "name", "scopes", "expires_at")

    def clean_expires_at(self) -> Any:
        ends = self.cleaned_data["expires_at"]
        if ends is not None and ends <= timezone.now():
            raise forms.ValidationError("That is over already.")
        return ends


@admin.register(models.ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    """Made here by those whom Django lets add keys, shown once, and revoked; never changed."""

    list_display = ("name", "user", "prefix", "scopes", "created_at", "expires_at", "revoked_at", "last_used_at")
    list_select_related = ("user",)
    ordering = ("-id",)
    exact_search = ("name", "prefix", "user__username")
    search_help_text = "A key's name, its public part or a user's name, as a whole."
    actions = ("revoke_keys",)
    exclude = ("secret_hash",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("orders.add_apikey")

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("orders.change_apikey")

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **(kwargs if obj else {**kwargs, "form": NewKeyForm}))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return super().get_fields(request, obj) if obj else NewKeyForm.Meta.fields

    def save_model(self, request: HttpRequest, obj: models.ApiKey, form: Any, change: bool) -> None:
        """Make the key as everybody else does, and show it this once."""
        made, text = create_key(
            user=obj.user,
            name=obj.name,
            scopes=form.cleaned_data["scopes"],
            expires_at=obj.expires_at,
            created_by=actor_of(request.user),
        )
        obj.pk, obj.prefix, obj.secret_hash = made.pk, made.prefix, made.secret_hash
        messages.warning(request, f"The key of {made.name}, shown now and never again: {text}")

    @admin.action(description="Revoke …", permissions=["revoke"])
    def revoke_keys(self, request: HttpRequest, chosen: QuerySet[models.ApiKey]) -> HttpResponse | None:
        def revoke(key: models.ApiKey, reason: str) -> str:
            revoke_key(name=key.name)
            self.log_change(request, key, f"Revoked: {reason}")
            return "opens nothing from now on."

        return ask_reason(
            self, request, chosen, action="revoke_keys", title="Revoke", do=revoke, refused=(KeyNameTaken,)
        )


@admin.register(models.SavedView)
class SavedViewAdmin(admin.ModelAdmin[models.SavedView]):
    """Views of the order list; whoever left leaves theirs behind."""

    list_display = ("name", "user", "is_shared", "query", "created_at")
    list_filter = ("is_shared",)
    list_select_related = ("user",)
    search_fields = ("name", "user__username")
    ordering = ("name",)


@admin.register(models.RetiredUse)
class RetiredUseAdmin(ReadOnlyAdmin):
    list_display = ("operation", "caller", "count", "last_at")
    ordering = ("-last_at",)


@admin.register(LogEntry)
class LogEntryAdmin(ReadOnlyAdmin):
    """What people did in this admin. What they did to orders and runs is in their histories."""

    list_display = ("action_time", "user", "content_type", "object_repr", "action_flag", "change_message")
    list_filter = ("action_flag",)
    date_hierarchy = "action_time"
    list_select_related = ("user", "content_type")
    ordering = ("-id",)
    exact_search = ("user__username", "object_repr")
    search_help_text = "Who, or what, as a whole."

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(getattr(request.user, "is_superuser", False)) or request.user.has_perm("admin.view_logentry")
