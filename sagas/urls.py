"""The runs' pages."""

from __future__ import annotations

from django.urls import path

from sagas import act_views, assign_views, import_views, inbox, views

urlpatterns = [
    path("", views.run_list, name="run_list"),
    path("attention/", inbox.run_attention, name="run_attention"),
    path("import/", import_views.run_import, name="run_import"),
    path("bulk/", inbox.bulk_list, name="bulk_list"),
    path("bulk/new/", inbox.bulk_new, name="bulk_new"),
    path("bulk/<uuid:operation_id>/", inbox.bulk_detail, name="bulk_detail"),
    path("bulk/<uuid:operation_id>/items.csv", inbox.bulk_csv, name="bulk_csv"),
    path("bulk/<uuid:operation_id>/<str:act>/", inbox.bulk_act, name="bulk_act"),
    path("<uuid:run_id>/", views.run_detail, name="run_detail"),
    path("<uuid:run_id>/export/", views.run_export, name="run_export"),
    path("<uuid:run_id>/assign/", assign_views.run_assign, name="run_assign"),
    path("<uuid:run_id>/snooze/", inbox.run_snooze, name="run_snooze"),
    path("<uuid:run_id>/<slug:act>/", act_views.run_act, name="run_act"),
]
