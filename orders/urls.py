"""The shop's pages."""

from __future__ import annotations

from django.urls import path
from django.views.generic import RedirectView

from orders import views

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="order_list"), name="home"),
    path("orders/", views.order_list, name="order_list"),
    path("orders/new/", views.order_new, name="order_new"),
    path("orders/<str:order_id>/", views.order_detail, name="order_detail"),
    path("orders/<str:order_id>/live/", views.order_live, name="order_live"),
    path("orders/<str:order_id>/cancel/", views.order_cancel, name="order_cancel"),
    path("orders/<str:order_id>/hand-over/", views.order_hand_over, name="order_hand_over"),
]
