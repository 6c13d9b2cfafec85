"""What works and what does not, over HTTP: what the health page and /health.json tell."""

from __future__ import annotations

from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sagas import health
from sagas.api import READ
from sagas.api_view import StaffView

LINE_STATES = [(state, state) for state in (health.OK, health.WARNING, health.FAILING)]


@extend_schema_serializer(component_name="HealthLine")
class LineShape(serializers.Serializer[Any]):
    """One thing that has to work."""

    name = serializers.CharField(help_text="Also where its runbook stands: `/health/runbooks/#name`.")
    state = serializers.ChoiceField(choices=LINE_STATES)
    text = serializers.CharField(help_text="What was found, in words.")
    since = serializers.DateTimeField(allow_null=True, help_text="Since when it is not well.")
    hit = serializers.IntegerField(help_text="How many runs wait because of it.")
    hit_keys = serializers.ListField(child=serializers.CharField(), help_text="The business keys of some of them.")


class HealthApi(StaffView):
    """What works and what does not."""

    scopes = {"GET": READ}

    class Output(serializers.Serializer[Any]):
        """Every line, and the worst state among them."""

        state = serializers.ChoiceField(choices=LINE_STATES, help_text="The worst of the lines'.")
        at = serializers.DateTimeField()
        lines = LineShape(many=True)

        class Meta:
            ref_name = "Health"

    @extend_schema(
        operation_id="get_health",
        summary="What works and what does not",
        description="What the health page shows. The status is 200 also where something fails; `state` tells. For a "
        "load balancer there are `/livez` and `/readyz`.",
        tags=["Health"],
        responses={200: Output},
    )
    def get(self, request: Request) -> Response:
        now = timezone.now()
        return Response(health.as_json(health.lines(now), now))
