"""Where the API has its runs, below /api/v1/."""

from __future__ import annotations

from django.urls import path

from sagas import api, api_bulk, api_health, api_parts, api_statistics

urlpatterns = [
    path("saga-runs", api.RunListApi.as_view(), name="api-saga-runs"),
    path("saga-runs/<uuid:run_id>", api.RunDetailApi.as_view(), name="api-saga-run"),
    path("saga-runs/<uuid:run_id>/retries", api.RetryApi.as_view(), name="api-saga-run-retries"),
    path("saga-runs/<uuid:run_id>/skips", api.SkipApi.as_view(), name="api-saga-run-skips"),
    path("saga-runs/<uuid:run_id>/resolutions", api.ResolveApi.as_view(), name="api-saga-run-resolutions"),
    path("saga-runs/<uuid:run_id>/compensations", api.CompensateApi.as_view(), name="api-saga-run-compensations"),
    path("saga-runs/<uuid:run_id>/steps", api_parts.StepListApi.as_view(), name="api-saga-run-steps"),
    path(
        "saga-runs/<uuid:run_id>/steps/<str:step>/attempts",
        api_parts.AttemptListApi.as_view(),
        name="api-step-attempts",
    ),
    path("saga-definitions", api_parts.DefinitionListApi.as_view(), name="api-saga-definitions"),
    path("saga-definitions/<str:name>", api_parts.DefinitionApi.as_view(), name="api-saga-definition"),
    path("saga-statistics", api_statistics.StatisticsApi.as_view(), name="api-saga-statistics"),
    path("health", api_health.HealthApi.as_view(), name="api-health"),
    path("bulk-operations", api_bulk.BulkCollectionApi.as_view(), name="api-bulk-operations"),
    path("bulk-operations/<uuid:operation_id>", api_bulk.BulkDetailApi.as_view(), name="api-bulk-operation"),
    path("bulk-operations/<uuid:operation_id>/items", api_bulk.BulkItemsApi.as_view(), name="api-bulk-items"),
]
