"""Runs, attempts, events and what belongs to them: to be read, searched and followed, never edited."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString

from sagas import services
from sagas.admin_tools import ReadOnlyAdmin, ReadOnlyLines, admin_link, ask_reason, list_link, page_link
from sagas.exceptions import ActRefused
from sagas.models import Assignment, Barrier, BulkItem, BulkOperation, RunEvent, SagaRun, Signal, StepRecord
from sagas.permissions import may
from sagas.selectors import run_view
from sagas.states import Direction


class RecordLines(ReadOnlyLines):
    """A run's attempts, in the order they began."""

    model = StepRecord
    fields = ("number", "step", "direction", "outcome", "error_code", "provider_id", "started_at", "ended_at")
    readonly_fields = fields
    show_change_link = True


class EventLines(ReadOnlyLines):
    """Who did what to the run, and why."""

    model = RunEvent
    fields = ("created_at", "kind", "step", "direction", "actor", "reason")
    readonly_fields = fields


class StateFilter(admin.ChoicesFieldListFilter):
    """Offers all states, and finds rare ones by their index."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset & SagaRun.objects.in_states(*self.lookup_val) if self.lookup_val else queryset


@admin.register(SagaRun)
class SagaRunAdmin(ReadOnlyAdmin):
    list_display = ("id", "saga", "business_key", "status", "current_step", "failure_code", "created_at", "updated_at")
    list_filter = (("status", StateFilter), "saga", "failure_code", "created_at")
    date_hierarchy = "created_at"
    ordering = ("-id",)
    exact_search = ("business_key", "pk")
    search_help_text = "A business key, such as an order's number, or a run's id, as a whole."
    readonly_fields = ("page", "subject", "all_records", "all_events")
    inlines = (RecordLines, EventLines)
    actions = ("cancel_runs", "retry_runs")

    @admin.display(description="page")
    def page(self, run: SagaRun) -> SafeString | str:
        return page_link("run_detail", run.pk, "Open the run's page")

    @admin.display(description="started for")
    def subject(self, run: SagaRun) -> SafeString | str:
        pages: dict[str, str] = getattr(settings, "SAGA_SUBJECT_PAGES", {})
        return page_link(pages.get(run.saga, ""), run.business_key, run.business_key)

    @admin.display(description="attempts")
    def all_records(self, run: SagaRun) -> SafeString:
        return list_link(StepRecord, "run__id__exact", run.pk, "All attempts as a list")

    @admin.display(description="events")
    def all_events(self, run: SagaRun) -> SafeString:
        return list_link(RunEvent, "run__id__exact", run.pk, "All events as a list")

    def has_act_cancel_permission(self, request: HttpRequest) -> bool:
        return may(request, "cancel")

    def has_act_retry_permission(self, request: HttpRequest) -> bool:
        return may(request, "retry")

    @admin.action(description="Cancel: undo everything …", permissions=["act_cancel"])
    def cancel_runs(self, request: HttpRequest, chosen: QuerySet[SagaRun]) -> HttpResponse | None:
        def cancel(run: SagaRun, reason: str) -> str:
            services.cancel(run_id=run.pk, actor=_actor(request), reason=reason)
            return "everything is being undone."

        return ask_reason(
            self,
            request,
            chosen,
            action="cancel_runs",
            title="Cancel",
            do=cancel,
            refused=(ActRefused,),
        )

    @admin.action(description="Try failed steps again now …", permissions=["act_retry"])
    def retry_runs(self, request: HttpRequest, chosen: QuerySet[SagaRun]) -> HttpResponse | None:
        def retry(run: SagaRun, reason: str) -> str:
            return retry_all(run, actor=_actor(request), reason=reason)

        return ask_reason(
            self,
            request,
            chosen,
            action="retry_runs",
            title="Try again",
            do=retry,
            refused=(ActRefused,),
        )


def retry_all(run: SagaRun, *, actor: str, reason: str) -> str:
    """Try every step and undo of the run again that can be. Raises ActRefused if there is none."""
    tried = []
    for step in run_view(run.pk).steps:
        for direction, can, title in (
            (Direction.ACTION, step.can, step.title),
            (Direction.COMPENSATION, step.undo_can, step.undo_title),
        ):
            if "retry" in can:
                services.retry(run_id=run.pk, step=step.name, direction=direction, actor=actor, reason=reason)
                tried.append(title)
    if not tried:
        raise ActRefused("retry", run.status, "no step or undo of it has failed")
    return f"{', '.join(tried)} will be tried again."


class OfRunAdmin(ReadOnlyAdmin):
    """Rows that belong to a run: found by it, and linked to it."""

    list_select_related = ("run",)
    ordering = ("-id",)
    exact_search = ("run__business_key", "run_id")
    search_help_text = "A business key or a run's id, as a whole."
    readonly_fields = ("run_link",)

    @admin.display(description="run")
    def run_link(self, row: StepRecord | RunEvent | Signal) -> SafeString | str:
        return admin_link(row.run, row.run.business_key)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        return lookup == "run__id__exact" or super().lookup_allowed(lookup, value, request)  # type: ignore[arg-type]


@admin.register(StepRecord)
class StepRecordAdmin(OfRunAdmin):
    list_display = (
        "id",
        "run_link",
        "step",
        "direction",
        "number",
        "outcome",
        "error_code",
        "provider_id",
        "started_at",
    )
    list_filter = ("outcome", "direction", "step", "error_code", "provider")


@admin.register(RunEvent)
class RunEventAdmin(OfRunAdmin):
    list_display = ("id", "run_link", "kind", "step", "direction", "actor", "reason", "created_at")
    list_filter = ("kind", "step")


@admin.register(Signal)
class SignalAdmin(OfRunAdmin):
    list_display = ("id", "run_link", "name", "actor", "received_at")
    list_filter = ("name",)


@admin.register(Barrier)
class BarrierAdmin(ReadOnlyAdmin):
    list_display = ("id", "key", "cause", "created_at")
    list_filter = ("cause",)
    ordering = ("-id",)
    exact_search = ("key",)
    search_help_text = "A key as a whole: <run>:<step>:<direction>."


def _actor(request: HttpRequest) -> str:
    return f"user:{request.user.get_username()}"


@admin.register(Assignment)
class AssignmentAdmin(ReadOnlyAdmin):
    list_display = ("run", "owner", "snoozed_until")
    list_select_related = ("run",)
    ordering = ("-run_id",)


@admin.register(BulkOperation)
class BulkOperationAdmin(ReadOnlyAdmin):
    list_display = ("about", "act", "state", "actor", "created_at", "ended_at")
    list_filter = ("act", "state")
    ordering = ("-id",)


@admin.register(BulkItem)
class BulkItemAdmin(ReadOnlyAdmin):
    list_display = ("run", "operation", "state", "note", "done_at")
    list_filter = ("state",)
    list_select_related = ("run", "operation")
    ordering = ("-id",)
