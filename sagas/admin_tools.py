"""What read-only admin pages share: no way to edit, links between rows, and actions that ask for a reason first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import CharField, Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from sagas.admin_large import LargeChangeList, LargePaginator, NewestValuesFilter

NONE = "–"
MOST_FOUND = 1000
MOST_AT_ONCE = 200
LONGEST_REASON = 500


class ReadOnlyAdmin(admin.ModelAdmin[Any]):
    """Shows rows and never changes one: what happened is not edited."""

    show_facets = admin.ShowFacets.NEVER  # they count every row, once for each value
    show_full_result_count = False  # counting a table of millions tells nobody anything
    paginator = LargePaginator
    list_per_page = 50
    exact_search: tuple[str, ...] = ()
    """Indexed columns that the search box looks up as a whole."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[LargeChangeList]:
        return LargeChangeList

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """Where a filter offers what the rows hold, what the newest of them hold."""
        return [
            (name, NewestValuesFilter) if isinstance(name, str) and self._is_free_text(name) else name
            for name in super().get_list_filter(request)
        ]

    def _is_free_text(self, name: str) -> bool:
        field = self.model._meta.get_field(name)
        return isinstance(field, CharField) and not field.choices

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return self.exact_search

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not term:
            return queryset, False
        # One look per index: a single OR over joins would use none of them, and take seconds.
        found: set[Any] = set()
        for column in self.exact_search:
            try:
                found.update(
                    queryset.order_by()
                    .filter(**{column: term})
                    .order_by("-pk")
                    .values_list("pk", flat=True)[:MOST_FOUND]
                )
            except (ValueError, forms.ValidationError):
                continue  # no UUID, no number: not what this column holds
        return queryset.filter(pk__in=found), False


class ReadOnlyLines(admin.TabularInline[Any, Any]):
    """admin/read_only_lines.html: rows that belong to another one, shown on its page."""

    template = "admin/read_only_lines.html"
    extra = 0
    can_delete = False
    ordering = ("id",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


def admin_link(row: Model | None, text: str = "") -> SafeString | str:
    """A link to the row's own admin page."""
    if row is None:
        return NONE
    meta = row._meta
    try:
        address = reverse(f"admin:{meta.app_label}_{meta.model_name}_change", args=[row.pk])
    except NoReverseMatch:
        return text or str(row)
    return format_html('<a href="{}">{}</a>', address, text or str(row))


def list_link(model: type[Model], column: str, value: object, text: str) -> SafeString:
    """A link to the admin's list of those rows whose `column` is `value`."""
    meta = model._meta
    address = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
    return format_html('<a href="{}?{}={}">{}</a>', address, column, value, text)


def page_link(name: str, argument: object, text: str) -> SafeString | str:
    """A link to one of the site's pages, or the text alone if the site has no such page."""
    try:
        return format_html('<a href="{}">{}</a>', reverse(name, args=[argument]), text)
    except NoReverseMatch:
        return text


def few(request: HttpRequest, chosen: QuerySet[Any]) -> list[Any] | None:
    """The chosen rows, or None with a word to the person: "select all" means all that the table holds."""
    rows = list(chosen[: MOST_AT_ONCE + 1])
    if len(rows) <= MOST_AT_ONCE:
        return rows
    way_out = "Acts on many have a preview and can be stopped: /orders/ and /runs/attention/."
    messages.error(request, f"More than {MOST_AT_ONCE} are chosen. {way_out}")
    return None


class ReasonForm(forms.Form):
    """Why an operator acts."""

    reason = forms.CharField(
        max_length=LONGEST_REASON,
        widget=forms.Textarea(attrs={"rows": 3, "cols": 60}),
        help_text="Kept in the history, with your name.",
    )


def ask_reason(
    model_admin: admin.ModelAdmin[Any],
    request: HttpRequest,
    chosen: QuerySet[Any],
    *,
    action: str,
    title: str,
    do: Callable[[Any, str], str],
    refused: tuple[type[Exception], ...],
) -> HttpResponse | None:
    """Ask for a reason, then `do` it to each row and say of each what came of it.

    `do(row, reason)` returns what was done, in words; an exception in `refused` is told as that row's refusal.
    """
    rows = few(request, chosen)
    if rows is None:
        return None
    form = ReasonForm(request.POST if "reason" in request.POST else None)
    if not form.is_valid():
        return TemplateResponse(
            request,
            "admin/act_with_reason.html",
            {
                **model_admin.admin_site.each_context(request),
                "title": title,
                "opts": model_admin.model._meta,
                "rows": rows,
                "form": form,
                "action": action,
                "action_checkbox_name": ACTION_CHECKBOX_NAME,
            },
        )
    for row in rows:
        try:
            done = do(row, form.cleaned_data["reason"])
        except refused as error:
            messages.error(request, f"{row}: {error}")
        else:
            messages.success(request, f"{row}: {done}")
    return None
