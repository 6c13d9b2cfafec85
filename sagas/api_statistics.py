"""How runs went, over HTTP: what the overview page and `manage.py saga stats` tell."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sagas.api import READ
from sagas.api_fields import Strict, checked_query
from sagas.api_shapes import DIRECTIONS, RUN_STATES
from sagas.api_view import ETAG, IF_NONE_MATCH, NOT_MODIFIED, StaffView, answer_with_tag
from sagas.overview import PERIODS, SAMPLE, overview_of


@extend_schema_serializer(component_name="RunCounts")
class Counts(serializers.Serializer[Any]):
    """Runs by how they stand now."""

    completed = serializers.IntegerField()
    compensated = serializers.IntegerField()
    under_way = serializers.IntegerField()
    needs_attention = serializers.IntegerField()
    abandoned = serializers.IntegerField()


@extend_schema_serializer(component_name="RunCountsInTime")
class PartShape(serializers.Serializer[Any]):
    """The runs that began in one part of the period: a minute, an hour or a day."""

    begins_at = serializers.DateTimeField(source="at")
    runs = Counts(source="counts")


@extend_schema_serializer(component_name="StepStatistics")
class WorkShape(serializers.Serializer[Any]):
    """The attempts of a step, or of its undo, that ended."""

    saga = serializers.CharField()
    step = serializers.CharField()
    direction = serializers.ChoiceField(choices=DIRECTIONS)
    title = serializers.CharField()
    attempts = serializers.IntegerField(source="tries")
    succeeded = serializers.IntegerField()
    p50_seconds = serializers.FloatField(
        source="p50", allow_null=True, help_text="Half of those that succeeded took no longer; null: none did."
    )
    p95_seconds = serializers.FloatField(source="p95", allow_null=True)


@extend_schema_serializer(component_name="TurnBackCause")
class CauseShape(serializers.Serializer[Any]):
    """Why runs turned back."""

    saga = serializers.CharField()
    title = serializers.CharField(help_text="Of the step; empty if a person or the deadline turned them back.")
    error_code = serializers.CharField(source="code")
    runs = serializers.IntegerField()


@extend_schema_serializer(component_name="WaitingRuns")
class WaitingShape(serializers.Serializer[Any]):
    """Runs that are under way at the same place, at this moment."""

    state = serializers.ChoiceField(choices=RUN_STATES, source="status")
    what = serializers.CharField(help_text="What they wait for, in words.")
    runs = serializers.IntegerField()
    since = serializers.DateTimeField(help_text="When the oldest of them began.")


class StatisticsApi(StaffView):
    """How runs went in a stretch of time up to now."""

    scopes = {"GET": READ}

    class Query(Strict):
        """Which stretch of time."""

        part = "parameter"

        since = serializers.ChoiceField(
            choices=[(name, name) for name in PERIODS], default="day", help_text="The last hour, day, week or month."
        )

    class Output(serializers.Serializer[Any]):
        """Outcomes, times, causes, and what waits now."""

        begins_at = serializers.DateTimeField()
        outcomes = Counts(source="totals", help_text="Of the runs that began since.")
        over_time = PartShape(source="parts", many=True, help_text="The same, part by part, oldest first.")
        steps = WorkShape(source="work", many=True)
        steps_are_of_the_newest = serializers.IntegerField(
            allow_null=True, help_text="Attempts, if there were more than are looked at."
        )
        causes = CauseShape(many=True, help_text="The most frequent first.")
        waiting = WaitingShape(many=True, help_text="Those that need a person first.")

        class Meta:
            ref_name = "RunStatistics"

    @extend_schema(
        operation_id="get_saga_statistics",
        summary="How runs went",
        description="What the overview page shows: outcomes over time, how long steps take, why runs turned back, and "
        "what waits now.",
        tags=["Runs"],
        parameters=[Query, IF_NONE_MATCH, ETAG],
        responses={200: Output, 304: NOT_MODIFIED},
    )
    def get(self, request: Request) -> Response:
        seen = overview_of(PERIODS[checked_query(self.Query, request)["since"]], timezone.now())
        told = {
            **vars(seen),
            "totals": seen.totals,
            "begins_at": seen.parts[0].at,
            "steps_are_of_the_newest": SAMPLE if seen.is_sample else None,
        }
        return answer_with_tag(request, self.Output(told).data)
