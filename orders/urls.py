"""The shop's pages."""

from __future__ import annotations

from django.urls import path
from django.views.generic import RedirectView

from orders import (
    act_views,
    inbound_views,
    label_views,
    list_acts,
    list_views,
    place_views,
    provider_views,
    return_views,
    saved_views,
    views,
)

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="order_list"), name="home"),
    path("webhooks/<str:provider>", inbound_views.receive, name="inbound_webhook"),
    path("paid/<str:provider>", return_views.come_back, name="paid"),
    path("providers/", provider_views.provider_list, name="provider_list"),
    path("providers/<str:name>/close/", provider_views.provider_close, name="provider_close"),
    path("orders/", list_views.order_list, name="order_list"),
    path("orders/export.csv", list_acts.order_export, name="order_export"),
    path("orders/bulk/", list_acts.order_bulk, name="order_bulk"),
    path("orders/views/", saved_views.view_save, name="view_save"),
    path("orders/views/<int:view_id>/delete/", saved_views.view_delete, name="view_delete"),
    path("orders/views/<int:view_id>/begin/", saved_views.view_begin, name="view_begin"),
    path("orders/columns/", saved_views.columns_choose, name="columns_choose"),
    path("orders/new/", place_views.order_new, name="order_new"),
    path("orders/<str:order_id>/", views.order_detail, name="order_detail"),
    path("orders/<str:order_id>/live/", views.order_live, name="order_live"),
    path("orders/<str:order_id>/notes/", views.order_note, name="order_note"),
    path("orders/<str:order_id>/cancel/", act_views.order_cancel, name="order_cancel"),
    path("orders/<str:order_id>/label/", label_views.order_label, name="order_label"),
    path("orders/<str:order_id>/hand-over/", act_views.order_hand_over, name="order_hand_over"),
]
