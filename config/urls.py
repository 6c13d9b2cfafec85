"""One include per app, and what belongs to the site as a whole."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path, re_path
from django.views.generic import TemplateView

from config.health import livez, readyz
from orders.api_schema import NowhereApi
from orders.login import LimitedLogin, admin_door
from orders.metrics import metrics
from orders.preferences import preferences, stay
from sagas.views import health_json, health_page, overview, runbooks

# Under /api/ these answer programs, elsewhere people.
handler400 = "orders.api_errors.bad_request"
handler500 = "orders.api_errors.server_error"

urlpatterns = [
    path("livez", livez, name="livez"),
    path("readyz", readyz, name="readyz"),
    path("metrics", metrics, name="metrics"),
    path("admin/login/", admin_door),
    path("admin/", admin.site.urls),
    path("accounts/login/", LimitedLogin.as_view(), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("api/v1/", include("orders.api_urls")),  # the runs' operations, schema and docs among them
    re_path(r"^api(?:/|$)", NowhereApi.as_view()),  # a program gets a problem, not a page
    path("preferences/", preferences, name="preferences"),
    path("accounts/stay/", stay, name="stay"),
    path("accessibility/", TemplateView.as_view(template_name="accessibility.html"), name="accessibility"),
    path("health/", health_page, name="health"),
    path("health.json", health_json, name="health_json"),
    path("health/runbooks/", runbooks, name="runbooks"),
    path("overview/", overview, name="overview"),
    path("runs/", include("sagas.urls")),
    path("", include("orders.urls")),
]
