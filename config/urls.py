"""One include per app, and what belongs to the site as a whole."""

from __future__ import annotations

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from config.health import livez, readyz
from config.middleware import DOCS_POLICY, content_security_policy

docs_view = SpectacularSwaggerSplitView.as_view(url_name="schema")

urlpatterns = [
    path("livez", livez, name="livez"),
    path("readyz", readyz, name="readyz"),
    path("admin/", admin.site.urls),
    path("accounts/login/", LoginView.as_view(redirect_authenticated_user=True), name="login"),
    path("accounts/logout/", LogoutView.as_view(), name="logout"),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", content_security_policy(DOCS_POLICY)(docs_view), name="docs"),
    path("api/v1/", include("orders.api_urls")),
    path("api/v1/", include("sagas.api_urls")),
    path("runs/", include("sagas.urls")),
    path("", include("orders.urls")),
]
