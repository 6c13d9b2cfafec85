"""The alerts and the dashboard that we give along, held by Prometheus' own checker: promtool."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.pure

ROOT = Path(__file__).resolve().parent.parent
MONITORING = ROOT / "docs" / "monitoring"
OURS = ROOT / "var" / "promtool"
"""Where `make promtool` puts it."""
TESTS = ("alerts_test.yml", "alerts_week_test.yml")
INTERVAL = "$__rate_interval"
"""What Grafana puts in itself."""


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool") or shutil.which(OURS)
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail(f"Neither promtool nor {OURS} is there; .ci/run should have called `make promtool`.")
    pytest.skip("No promtool here; say `make promtool`, or install Prometheus, to have the alerts tried.")


def run(promtool: str, *arguments: str | Path) -> str:
    """What it says; fails with it if it finds fault."""
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    """What the dashboard asks Prometheus for."""
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_prometheus_takes_the_alerts(promtool: str) -> None:
    assert f"SUCCESS: {len(rules())} rules found" in run(promtool, "check", "rules", MONITORING / "alerts.yml")


@pytest.mark.parametrize("file", TESTS)
def test_alerts_fire_when_they_should_and_not_before(file: str, promtool: str) -> None:
    assert "SUCCESS" in run(promtool, "test", "rules", MONITORING / file)


def test_each_alert_is_told_when_it_fires_and_when_it_is_quiet() -> None:
    told = defaultdict(set)
    for file in TESTS:
        for story in yaml.safe_load((MONITORING / file).read_text())["tests"]:
            for moment in story["alert_rule_test"]:
                told[moment["alertname"]].add(bool(moment["exp_alerts"]))

    assert told == {rule["alert"]: {True, False} for rule in rules()}


def test_prometheus_takes_every_expression_of_the_dashboard(promtool: str, tmp_path: Path) -> None:
    asked = [
        {"record": f"panel:{number}", "expr": expression.replace(INTERVAL, "5m")}
        for number, expression in enumerate(expressions())
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": asked}]}))

    assert f"SUCCESS: {len(asked)} rules found" in run(promtool, "check", "rules", file)
    assert len(asked) > 30
