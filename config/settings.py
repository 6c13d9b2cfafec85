"""The one settings file. Every value that differs between installations comes through config/env.py and is
described in docs/settings.md; tests/test_house.py keeps that page complete."""

from __future__ import annotations

from pathlib import Path

import django
import django_stubs_ext

from config.env import (
    env_bool,
    env_broker,
    env_choice,
    env_database,
    env_everything,
    env_int,
    env_json,
    env_limits,
    env_link,
    env_list,
    env_mailer,
    env_rate,
    env_seconds,
    env_secret,
    env_text,
)

# Lets classes of Django's be written with their model at run time as they are for the type checker: ModelAdmin[Order].
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent

# What kind of site this is ------------------------------------------------------------------------

DEBUG = env_bool("DEBUG", False)  # shows code and settings to whoever causes an error, so never by default
DEMO = env_bool("DEMO", False)  # offers the scenario picker and lets test cards and postcodes plan failures
SITE_LABEL = env_text("SITE_LABEL", "demo" if DEMO else "")  # on every page: a test shop is not the real one
SITE_URL = env_text("SITE_URL", "http://127.0.0.1:8000").rstrip("/")  # as people reach it; links in mail begin with it
HTTPS = SITE_URL.startswith("https://")  # decides everything below that is only right behind TLS

# Files made by running: the generated secret, mail written to files.
VAR_DIR = Path(env_text("VAR_DIR", str(BASE_DIR / "var")))

SECRET_KEY = env_secret("SECRET_KEY", VAR_DIR / "secret_key", required=HTTPS)
ALLOWED_HOSTS = env_list("ALLOWED_HOSTS", ("127.0.0.1", "localhost", "[::1]"))
CSRF_TRUSTED_ORIGINS = env_list("CSRF_TRUSTED_ORIGINS", (SITE_URL,))

# Apps and the way of a request --------------------------------------------------------------------

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    # Before staticfiles, so that runserver too serves through it and pages look the same under every server.
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "django_htmx",
    "django_q",
    "config.apps.SiteConfig",
    "sagas.apps.SagasConfig",
    "orders.apps.OrdersConfig",
]

MIDDLEWARE = [
    "config.middleware.RequestIdMiddleware",  # first, so that every answer and log line carries the id
    "config.middleware.trace_middleware",  # and its trace
    "orders.http_counts.HttpCountsMiddleware",  # then this one, so that every answer is counted with all it took
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "orders.api_limits.ApiRateMiddleware",  # before the database is asked for anything
    "orders.api_retiring.RetiringMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "orders.visitors.AttentionMiddleware",
    "orders.preferences.PreferencesMiddleware",
    "orders.lookers.LookersMiddleware",
    "orders.refusals.RefusalsMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
ASGI_APPLICATION = "config.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "orders.context_processors.frame",
            ],
        },
    },
]

# Database -----------------------------------------------------------------------------------------

DATABASE = env_database("DATABASE_URL", "sqlite:///db.sqlite3")
if DATABASE["ENGINE"] == "django.db.backends.sqlite3":
    DATABASE["NAME"] = BASE_DIR / str(DATABASE["NAME"])
    DATABASE["OPTIONS"] = {
        # WAL lets pages be read while a worker writes. FULL, because an order that was answered 202 must
        # still be there after a power cut; in WAL mode the cheaper NORMAL may lose the last commits.
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        # A transaction that reads and then writes would otherwise fail at once if somebody wrote meanwhile.
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,  # seconds to wait for the one writer SQLite allows
    }
else:
    DATABASE["CONN_HEALTH_CHECKS"] = True  # a connection kept across a database restart is found out before its use
DATABASE["CONN_MAX_AGE"] = env_int("DATABASE_CONN_MAX_AGE_SECONDS", 60)
DATABASES = {"default": DATABASE}
DATABASE_LOCK_TIMEOUT = env_seconds("DATABASE_LOCK_TIMEOUT_SECONDS", 5)  # migrate gives up before customers do
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Queue: a doorbell only, see docs/decisions/0001-dependencies.md ----------------------------------

Q_CLUSTER: dict[str, object] = {
    "name": "orders",
    "label": "Queue",
    "workers": env_int("Q_WORKERS", 2, least=1),
    "timeout": env_int("Q_TIMEOUT_SECONDS", 60, least=5),  # a drive ends by itself long before
    "retry": env_int("Q_RETRY_SECONDS", 90, least=6),  # above the timeout, or a slow task would run twice at once
    "max_attempts": 0,  # a wake-up whose worker was killed is heard again, however often that happens
    "ack_failures": True,
    "save_limit": -1,  # a kept success costs a scan of all kept successes; our own rows tell the story
    "catch_up": False,  # after a pause one sweep does what the missed ones would have done
    "poll": env_seconds("Q_POLL_SECONDS", 0.02, least=0.01),  # half of this is what an idle order waits
    "bulk": 5,  # a burst of wake-ups is drained in few looks
    **env_broker("BROKER_URL"),
}

# The saga engine ----------------------------------------------------------------------------------

SAGA_LEASE = env_seconds("SAGA_LEASE_SECONDS", 60, least=1)  # outlasts the slowest action; see sagas/checks.py
SAGA_DRIVE_SECONDS = env_seconds("SAGA_DRIVE_SECONDS", 20, least=1)  # how long one wake-up's drive goes on
SAGA_LINGER_SECONDS = env_seconds("SAGA_LINGER_SECONDS", 3)  # how long a drive stays for work that is due soon
SAGA_BATCH = env_int("SAGA_BATCH", 200, least=1)  # runs one drive claims at a time
SAGA_THREADS = env_int("SAGA_THREADS", 32, least=1)  # plain-function actions under way at a time
SAGA_MAX_CLAIMS = env_int("SAGA_MAX_CLAIMS", 5, least=1)  # claims without progress before a person is asked
SAGA_STOP_FLAG = env_text("SAGA_STOP_FLAG", "")  # sagaworker sets it for its cluster: a file that ends drives
SAGA_COUNTS_KEPT = env_seconds("SAGA_COUNTS_KEPT_SECONDS", 5)  # before a process adds them to the metrics of all
SAGA_MAY_ACT = "orders.roles.can"  # (user, act) -> bool: who may help a run on; the engine knows no roles of its own
SAGA_OWNERS = "orders.roles.owners"  # () -> who may look after a run, as the history names people
SAGA_MAY_NOT_WORDS = "orders.roles.refusal"  # (user, act) -> what is said to whoever may not
SAGA_API_ONCE = "orders.api_idempotency.once"  # keeps the answers to acts that came with an Idempotency-Key
SAGA_SUBJECT_PAGES = {"order_processing": "order_detail"}  # the page of what a run was started for, by its business key
SAGA_LOGS_LINK = env_link("SAGA_LOGS_LINK", "{run}")  # where the log's lines of a run are to be read
SAGA_TRACE_LINK = env_link("SAGA_TRACE_LINK", "{trace}", "{run}")  # where the trace of a run is to be seen
SAGA_PROVIDERS_PAGE = "provider_list"  # the page of the outside systems that steps ask; empty: there is none
# `saga start order FILE`: what is more than a run. By the saga's own name too: a run alone would be nobody's order.
SAGA_STARTERS = {"order": "orders.api.start_order", "order_processing": "orders.api.start_order"}
SAGA_AMOUNTS_AT_RISK = {"order_processing": "orders.selectors.amounts_held"}  # by business key and currency
SAGA_HEALTH_LINES = ["orders.health_lines.lines"]  # what the health page says of the shop, beside the engine
SAGA_EFFECT_WORDS = {"order_processing": "orders.effect_words.words_of_run"}  # what dialogs say that acts do

# The shop -----------------------------------------------------------------------------------------

SHOP_CURRENCY = env_text("SHOP_CURRENCY", "EUR")
PROVIDERS = {  # names, or dotted paths of classes; several, by commas, share the work as PROVIDER_ROUTES says
    "inventory": env_text("PROVIDER_INVENTORY", "local"),
    "payments": env_text("PROVIDER_PAYMENTS", "sandbox"),
    "shipping": env_text("PROVIDER_SHIPPING", "sandbox"),
    "mail": env_text("PROVIDER_MAIL", "django"),
}
PROVIDER_ROUTES = env_json("PROVIDER_ROUTES", {})
PROVIDER_LIMITS = env_limits("PROVIDER_LIMITS")
TRACEPARENT_TO = env_list("TRACEPARENT_TO")  # providers of one's own that take part in traces; no vendor asks for it
PROVIDER_SETTINGS = env_everything()  # each adapter knows by itself which of it is its own
ALLOW_SANDBOX = env_bool("ALLOW_SANDBOX", DEMO or not HTTPS)  # a shop that takes orders and no money is a mistake

FAULTS = env_bool("FAULTS", DEMO)  # lets a planned fault come between us and a provider; costs a query a call

# How long the order saga keeps trying. The demo gives up sooner, since somebody is watching.
ORDER_RETRY_ATTEMPTS = env_int("ORDER_RETRY_ATTEMPTS", 4 if DEMO else 6, least=1)  # while an order can be given up
ORDER_PATIENT_ATTEMPTS = env_int("ORDER_PATIENT_ATTEMPTS", 4 if DEMO else 10, least=1)  # refunds and mail
ORDER_RETRY_FIRST = env_seconds("ORDER_RETRY_FIRST_SECONDS", 0.5 if DEMO else 1)  # the first wait; doubles
ORDER_RETRY_CAP = env_seconds("ORDER_RETRY_CAP_SECONDS", 3 if DEMO else 300)  # no wait is longer
ORDER_DEADLINE = env_seconds("ORDER_DEADLINE_SECONDS", 86_400, least=1)  # after a day the customer gets it all back
PAYMENT_WAIT = env_seconds("PAYMENT_WAIT_SECONDS", 3600, least=1)  # for 3-D Secure, an approval, a bank
REFUND_WAIT = env_seconds("REFUND_WAIT_SECONDS", 14 * 86_400, least=1)  # then a person is asked
PAYMENT_LOOK = env_seconds("PAYMENT_LOOK_SECONDS", 60, least=1)  # how often a pending payment is asked after
ORDER_CAPTURE = env_choice("ORDER_CAPTURE", "placing", frozenset({"placing", "shipment"}))  # when money is taken

# What an order placed from Python may leave out. It fits the embedded providers, where nobody's goods or money move.
ORDER_DEFAULTS = {
    "currency": SHOP_CURRENCY,
    "email": "customer@example.com",
    "ship_name": "A. Customer",
    "ship_line1": "1 Example Street",
    "ship_city": "Berlin",
    "ship_postcode": "10115",
    "ship_country": "DE",
    "card_token": "tok_visa",
}

# Mail ---------------------------------------------------------------------------------------------

DEFAULT_FROM_EMAIL = env_text("DEFAULT_FROM_EMAIL", "orders@example.com")
SERVER_EMAIL = DEFAULT_FROM_EMAIL
MAIL_BACKEND, MAIL_OPTIONS = env_mailer("EMAIL_URL", f"file:{VAR_DIR / 'mail'}")
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": MAIL_BACKEND, "OPTIONS": MAIL_OPTIONS}}
else:
    # Django 5.2 knows one setting per option instead; 6.1 warns when it sees those.
    EMAIL_BACKEND = MAIL_BACKEND
    EMAIL_FILE_PATH = MAIL_OPTIONS.get("file_path")
    EMAIL_HOST = MAIL_OPTIONS.get("host", "localhost")
    EMAIL_PORT = MAIL_OPTIONS.get("port", 25)
    EMAIL_HOST_USER = MAIL_OPTIONS.get("username", "")
    EMAIL_HOST_PASSWORD = MAIL_OPTIONS.get("password", "")
    EMAIL_USE_TLS = MAIL_OPTIONS.get("use_tls", False)
    EMAIL_USE_SSL = MAIL_OPTIONS.get("use_ssl", False)
    EMAIL_TIMEOUT = MAIL_OPTIONS.get("timeout")

# API ----------------------------------------------------------------------------------------------

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "orders.api_auth.ApiKeyAuthentication",  # first, so that a 401 carries its WWW-Authenticate
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["orders.api_auth.Allowed"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["orders.api_json.StrictJsonParser"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "orders.api_errors.problem_handler",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "URL_FORMAT_OVERRIDE": None,  # ?format= is an unknown parameter like any other; Accept decides
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Orders",
    "DESCRIPTION": (
        "Place orders, follow their steps, cancel them, and help those that need attention. Amounts are text with "
        "their currency; every error is a problem of RFC 9457 whose `type` leads to a page about it; lists of values "
        "may grow, so that a client should bear a state it does not know."
    ),
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SERVE_INCLUDE_SCHEMA": False,
    # The document is public: it tells no more than the source, and a client can be made from it without a key.
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    # From our own static files: no page of ours asks an outside host for anything.
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "orders.api_schema.complete",  # what is the same for every operation: problems and headers
    ],
    # One name for one thing: without these, fields called `state` would share a made-up one.
    "ENUM_NAME_OVERRIDES": {
        "RunState": "sagas.api_shapes.RUN_STATES",
        "StepState": "sagas.api_shapes.STEP_STATES",
        "UndoState": "sagas.api_shapes.UNDO_STATES",
        "AttemptOutcome": "sagas.api_shapes.OUTCOMES",
        "Direction": "sagas.api_shapes.DIRECTIONS",
        "StepKind": "sagas.api_shapes.KINDS",
        "HealthState": "sagas.api_health.LINE_STATES",
        "BulkAct": "sagas.api_bulk.BULK_ACTS",
        "BulkState": "sagas.api_bulk.BULK_STATES",
        "BulkItemState": "sagas.api_bulk.ITEM_STATES",
        "Scope": "orders.api_shop.SCOPES",
        "WebhookEventType": "orders.api_webhooks.EVENT_TYPES",
        "WebhookDeliveryStatus": "orders.api_webhooks.DELIVERY_STATUSES",
        "CancellationState": "orders.api_follow_up.CANCELLATION_STATES",
        "Actor": "orders.api_follow_up.ACTORS",
    },
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
}

# People, cookies, TLS -----------------------------------------------------------------------------

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator"},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]

LOGIN_NAME_RATE = env_rate("LOGIN_NAME_RATE", "10/900")  # failed tries of one name: nobody guesses a password in ten
LOGIN_ADDRESS_RATE = env_rate("LOGIN_ADDRESS_RATE", "100/900")  # and from one address, where an office may sit behind
ORDER_RATE = env_rate("ORDER_RATE", "60/60")  # orders placed by one person
METRICS_TOKEN = env_text("METRICS_TOKEN")  # what a scraper of /metrics shows; without one only staff may look
API_RATE = env_rate("API_RATE", "3000/10")  # requests to the API by one caller, of any kind
API_FAILED_RATE = env_rate("API_FAILED_RATE", "100/60")  # and with keys that are none, from one address
API_ORDER_RATE = env_rate("API_ORDER_RATE", "1000/10")  # and with one key, by a shop's back end
WEBHOOKS_LOCAL = env_bool("WEBHOOKS_LOCAL", DEMO)  # lets webhooks go to plain HTTP and to our own network: to try them
# Where a caller's address stands. Behind a proxy it is in a header that the proxy must set itself, HTTP_X_REAL_IP say.
CLIENT_ADDRESS = env_text("CLIENT_ADDRESS", "REMOTE_ADDR")

AUTHENTICATION_BACKENDS = ["orders.visitors.VisitorBackend"]
SESSION_COOKIE_AGE = env_seconds("SESSION_SECONDS", 14 * 86_400, least=600)  # pages warn before it is over
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^livez$", r"^readyz$"]  # who probes a machine from inside speaks plain HTTP
SECURE_HSTS_SECONDS = env_int("HSTS_SECONDS", 31_536_000 if HTTPS else 0)
# Both bind every other site under the same name, and for months: only the owner of the name can say yes.
SECURE_HSTS_INCLUDE_SUBDOMAINS = env_bool("HSTS_INCLUDE_SUBDOMAINS", False)
SECURE_HSTS_PRELOAD = env_bool("HSTS_PRELOAD", False)
if env_bool("TRUST_PROXY", False):
    # Only behind a proxy that sets this header itself: from anybody else it is a lie waiting to be told.
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"

# An order of a few hundred lines is 30 kB; a megabyte is a mistake or an attack.
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024
DATA_UPLOAD_MAX_NUMBER_FIELDS = 1000

# Files, language, logs ----------------------------------------------------------------------------

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
# A clean clone serves its pages without a collectstatic, at the price of a look through the apps at start.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

LANGUAGE_CODE = "en"
USE_I18N = False  # one language; without this, numbers and dates in pages would follow the reader's browser
TIME_ZONE = "UTC"
USE_TZ = True

# Nothing here depends on a shared cache; several hosts may share one all the same.
CACHE_URL = env_text("CACHE_URL")
CACHES: dict[str, dict[str, object]] = {
    "default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": CACHE_URL,
        # Each request to the API asks it: one that hangs is done without.
        "OPTIONS": {"socket_connect_timeout": 1, "socket_timeout": 1},
    }
    if CACHE_URL
    # Counts of many callers at a time: with Django's 300 places a crowd would push its own counts out.
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000}}
}

LOG_LEVEL = env_choice("LOG_LEVEL", "INFO", frozenset({"DEBUG", "INFO", "WARNING", "ERROR"}))
LOG_FORMAT = env_choice("LOG_FORMAT", "plain", frozenset({"plain", "json"}))
SAGA_LOG_RUNS = env_bool("SAGA_LOG_RUNS", LOG_FORMAT == "json")  # a line for each step done, and each event of a run
# Where traces go: otlp, console, or another exporter of OpenTelemetry's by its name. The SDK reads its own variables,
# the address among them; without this one it is not even loaded.
TRACES_EXPORTER = env_text("OTEL_TRACES_EXPORTER")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {
        "request_id": {"()": "config.middleware.RequestIdFilter"},
        "trace": {"()": "config.logs.TraceFilter"},
    },
    "formatters": {
        "plain": {"format": "%(asctime)s %(levelname)-7s %(name)s [%(request_id)s] %(message)s"},
        "json": {"()": "config.logs.JsonFormatter"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": LOG_FORMAT, "filters": ["request_id", "trace"]},
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # Django would send its own to handlers that are silent without DEBUG; one place for all is enough.
        "django": {"handlers": [], "level": LOG_LEVEL, "propagate": True},
        # Says every task twice at INFO, and a wake-up is no news.
        "django-q": {
            "handlers": [],
            "level": max(LOG_LEVEL, "WARNING", key=["DEBUG", "INFO", "WARNING", "ERROR"].index),
        },
    },
}
