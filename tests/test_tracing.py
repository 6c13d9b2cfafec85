"""Where spans go: by OpenTelemetry's own variables, and nowhere unless it is said."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from opentelemetry import trace
from pytest_django import Settings

from config import tracing
from tests.collector import collector
from tests.processes import ROOT, free_port

NOT_THERE = (
    "OTEL_TRACES_EXPORTER={name!r}: no such exporter is installed. `pip install --require-hashes -r "
    "requirements/traces.txt` brings otlp and console; others are packages of their own."
)
SET_UP = "import django; django.setup(); "
SPAN = "from sagas import traces\nwith traces.serving('ask', traceparent=''): pass"
WITHOUT_SDK = "import sys; sys.modules['opentelemetry.sdk'] = None; "


def run(folder: Path, code: str, **env: str) -> tuple[int, str]:
    """The exit code of a process of the site's, and what it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**kept, "DJANGO_SETTINGS_MODULE": "config.settings", "VAR_DIR": str(folder), "SECRET_KEY": "x", **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.pure
class TestSwitchedOn:
    @pytest.mark.parametrize("name", ["", "none"])
    def test_without_an_exporter_nothing_is_set_up(self, settings: Settings, name: str) -> None:
        settings.TRACES_EXPORTER = name

        tracing.begin()

        assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    def test_an_exporter_that_is_not_there_stops_the_start(self, settings: Settings) -> None:
        settings.TRACES_EXPORTER = "zipkin"

        with pytest.raises(ImproperlyConfigured) as raised:
            tracing.begin()

        assert str(raised.value) == NOT_THERE.format(name="zipkin")


@pytest.mark.pure
@pytest.mark.processes
class TestProcesses:
    def test_the_sdk_is_not_even_loaded(self, tmp_path: Path) -> None:
        code = f"{SET_UP}import sys; sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"

        assert run(tmp_path, code) == (0, "")

    def test_the_site_starts_where_the_sdk_is_not_installed(self, tmp_path: Path) -> None:
        assert run(tmp_path, WITHOUT_SDK + SET_UP + SPAN) == (0, "")

    def test_asked_for_without_the_sdk_it_says_what_to_install(self, tmp_path: Path) -> None:
        code, said = run(tmp_path, WITHOUT_SDK + SET_UP, OTEL_TRACES_EXPORTER="otlp")

        assert code == 1
        assert NOT_THERE.format(name="otlp") in said

    def test_on_the_console(self, tmp_path: Path) -> None:
        code, said = run(tmp_path, SET_UP + SPAN, OTEL_TRACES_EXPORTER="console")

        assert (code, said.count('"name": "ask"'), '"service.name": "orders"' in said) == (0, 1, True)

    @pytest.mark.parametrize(
        "named", [{"OTEL_SERVICE_NAME": "shop-web"}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop-web"}]
    )
    def test_a_process_that_ends_sends_what_it_has_first(self, tmp_path: Path, named: dict[str, str]) -> None:
        with collector() as seen:
            said = run(
                tmp_path, SET_UP + SPAN, OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=seen.url, **named
            )

        assert said == (0, "")
        assert [(one.name, one.service) for one in seen.spans] == [("ask", "shop-web")]

    def test_a_process_of_a_process_does_too(self, tmp_path: Path) -> None:
        """As the queue's workers are started: by a fork, and without the interpreter's own end."""
        code = f"""{SET_UP}
import multiprocessing
from sagas import traces
def work():
    with traces.serving('in the child', traceparent=''):
        pass
child = multiprocessing.get_context('fork').Process(target=work)
child.start()
child.join()
"""
        with collector() as seen:
            said = run(tmp_path, code, OTEL_TRACES_EXPORTER="otlp", OTEL_EXPORTER_OTLP_ENDPOINT=seen.url)

        assert said == (0, "")
        assert [one.name for one in seen.spans] == ["in the child"]

    def test_a_collector_that_is_away_keeps_nobody_from_ending(self, tmp_path: Path) -> None:
        began = time.monotonic()
        code, _ = run(
            tmp_path,
            SET_UP + SPAN,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}",
            OTEL_EXPORTER_OTLP_TIMEOUT="50",
        )

        assert code == 0
        assert time.monotonic() - began < 25

    def test_whoever_has_set_it_up_is_left_alone(self, tmp_path: Path) -> None:
        code = f"""
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
ours = TracerProvider()
trace.set_tracer_provider(ours)
{SET_UP}
import sys
sys.exit(trace.get_tracer_provider() is not ours)
"""
        assert run(tmp_path, code, OTEL_TRACES_EXPORTER="console") == (0, "")
