"""Where the API has its runs, below /api/v1/."""

from __future__ import annotations

from django.urls import path

from sagas import api

urlpatterns = [
    path("saga-runs", api.RunListApi.as_view(), name="api-saga-runs"),
    path("saga-runs/<uuid:run_id>", api.RunDetailApi.as_view(), name="api-saga-run"),
    path("saga-runs/<uuid:run_id>/retries", api.RetryApi.as_view(), name="api-saga-run-retries"),
    path("saga-runs/<uuid:run_id>/skips", api.SkipApi.as_view(), name="api-saga-run-skips"),
    path("saga-runs/<uuid:run_id>/resolutions", api.ResolveApi.as_view(), name="api-saga-run-resolutions"),
]
