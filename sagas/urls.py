"""The runs' pages."""

from __future__ import annotations

from django.urls import path

from sagas import views

urlpatterns = [
    path("", views.run_list, name="run_list"),
    path("attention/", views.run_attention, name="run_attention"),
    path("<uuid:run_id>/", views.run_detail, name="run_detail"),
    path("<uuid:run_id>/export/", views.run_export, name="run_export"),
    path("<uuid:run_id>/<slug:act>/", views.run_act, name="run_act"),
]
