"""Dashboards, alerts and runbooks belong together: what they name exists, and every alert can fire."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client import CollectorRegistry, ProcessCollector
from typer import Context
from typer.main import get_command

from cytoray_services.commands.root import app
from cytoray_services.jobs.scale import Scale
from cytoray_services.telemetry import job_metrics, serving_metrics
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.service.config import Replicas, ServiceConfig
from cytoray_training.recipe import Training

REPOSITORY = Path(__file__).resolve().parents[2]
MONITORING = REPOSITORY / "deploy" / "monitoring"
DASHBOARDS = REPOSITORY / "helm" / "cytoray" / "files" / "dashboards"
ALERTS = sorted((REPOSITORY / "helm" / "cytoray" / "files" / "alerts").glob("*.yaml"))
CASES = sorted((MONITORING / "cases").glob("*.yaml"))
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
BOARDS = ("service", "training", "cluster")
# What kube-state-metrics gives; nothing here can be asked whether it does.
KUBERNETES = {
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_status_waiting_reason",
    "kube_pod_status_phase",
}
# What Ray gives beside the gauges of its nodes; test_monitoring_panels.py asks real nodes.
RAY = {
    "ray_actors",
    "ray_object_store_memory",
    "ray_resources",
    "ray_serve_autoscaling_target_replicas",
    "ray_serve_deployment_replica_healthy",
}


def board(name: str) -> dict[str, Any]:
    """Read a dashboard as Grafana gets it."""
    found: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return found


def panels_of(name: str) -> list[dict[str, Any]]:
    return [panel for panel in board(name)["panels"] if panel["type"] != "row"]


@cache
def rules() -> list[dict[str, Any]]:
    groups = [group for path in ALERTS for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def queries() -> Iterator[tuple[str, str]]:
    """Give everything that asks Prometheus, with a name for it."""
    for name in BOARDS:
        for panel in panels_of(name):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]


@cache
def known_metrics() -> set[str]:
    registry = CollectorRegistry()
    serving_metrics(registry)
    job_metrics(registry)
    ProcessCollector(registry=registry)
    own = set()
    for family in registry.collect():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}.get(family.type, [""])
        own |= {family.name + ending for ending in endings}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    return own | recorded | KUBERNETES | RAY | {"up"} | ray_gauges()


def ray_gauges() -> set[str]:
    """Name what Ray tells of nodes and of our trainings."""
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    from cytoray_training.run.progress_metrics import GAUGES

    return {f"ray_{name}" for name in [*METRICS_GAUGES, *GAUGES]}


def metrics_in(query: str) -> set[str]:
    """Name the metrics of a query: what is neither text, a label, a function nor a word of the language."""
    bare = re.sub(r'"[^"]*"', "", query)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on|without|ignoring)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", bare)
    return set(words) - {"and", "or", "unless", "by", "on", "le"}


def test_the_dashboards_are_those_that_their_sources_describe(tmp_path: Path) -> None:
    build = MONITORING / "dashboards" / "build.py"
    done = subprocess.run([sys.executable, str(build), str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in DASHBOARDS.iterdir()) == sorted(f"{name}.json" for name in BOARDS)
    for name in BOARDS:
        built = (tmp_path / f"{name}.json").read_text()
        assert built == (DASHBOARDS / f"{name}.json").read_text(), f"run {build.relative_to(REPOSITORY)}"


@pytest.mark.parametrize("name", BOARDS)
def test_grafanas_schema_knows_all_of_a_dashboard(name: str) -> None:
    register_default_plugins()
    read = Dashboard.from_json(board(name))
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == board(name)


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_can_be_used_without_knowing_it(name: str) -> None:
    found = board(name)
    assert found["uid"] == f"cytoray-{name}"
    variables = [variable["name"] for variable in found["templating"]["list"]]
    assert variables[:2] == ["datasource", "namespace"]
    assert [panel["id"] for panel in found["panels"]] == list(range(1, len(found["panels"]) + 1))
    for panel in panels_of(name):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        used = set(re.findall(r"\$(\w+)", " ".join(target["expr"] for target in panel["targets"])))
        assert used - {"__rate_interval"} <= set(variables), panel["title"]
        for link in panel.get("links") or []:
            assert (REPOSITORY / link["url"]).is_file(), link


@pytest.mark.parametrize(("name", "query"), [pytest.param(name, query, id=name) for name, query in queries()])
def test_every_metric_that_is_asked_for_exists(name: str, query: str) -> None:
    asked = metrics_in(query)
    assert asked, f"{name} asks for nothing"
    assert asked <= known_metrics()


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_names_a_label_that_prometheus_takes_for_itself(name: str) -> None:
    for panel in panels_of(name):
        for target in panel["targets"]:
            assert not re.search(r"\bby \([^)]*\bjob\b", target["expr"]), panel["title"]


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_an_alert_says_what_is_wrong_and_what_to_do(alert: dict[str, Any]) -> None:
    name, notes = alert["alert"], alert["annotations"]
    assert name.startswith("Cytoray")
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert notes["summary"]
    assert re.fullmatch(r"[A-Z].*[^.]\.", notes["description"]), "one sentence"
    assert notes["runbook_url"] == f"docs/runbooks/{name}.md"


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    names = {alert["alert"] for alert in alerts()}
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == names
    index = (RUNBOOKS / "README.md").read_text()
    assert {name for name in names if f"({name}.md)" in index} == names


@pytest.mark.parametrize("name", sorted({alert["alert"] for alert in alerts()}))
def test_a_runbook_leads_from_what_it_means_to_how_to_prevent_it(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["What it means", "How to see it", "Likely causes", "What to do", "How to prevent it"]


@pytest.mark.slow
def test_runbooks_name_commands_and_fields_that_exist() -> None:
    texts = "\n".join(path.read_text() for path in RUNBOOKS.glob("*.md"))
    commands = set(re.findall(r"^cytoray ((?:[a-z][a-z-]* ?){1,2})", texts, re.MULTILINE))
    commands |= set(re.findall(r"`cytoray ((?:[a-z][a-z-]* ?){1,2})", texts))
    fields = set(re.findall(r"`([a-z]+\.[a-z_.]+)[`:]", texts))
    assert len(commands) > 5
    assert len(fields) > 15
    assert [words for words in commands if not is_command(words.split())] == []
    assert [field for field in fields if not is_field(field.split("."))] == []


def is_command(words: list[str]) -> bool:
    command: Any = get_command(app)
    for word in words:
        command = command.get_command(Context(command), word)
        if command is None or not hasattr(command, "get_command"):
            break
    return command is not None


def is_field(words: list[str]) -> bool:
    """Say whether a recipe, a service's configuration or the chart's values have such a field."""
    model: Any = {"scale": Scale, "training": Training, "replicas": Replicas, "run": ReplicaOptions}.get(words[0])
    if words[0] in ServiceConfig.model_fields and words[0] != "jobs":
        model, words = ServiceConfig, ["", *words]
    if words[:2] == ["serving", "config"]:
        model, words = ServiceConfig, words[1:]
    if model is None:
        values = yaml.safe_load((REPOSITORY / "helm" / "cytoray" / "values.yaml").read_text())
        for word in words:
            values = values.get(word)
        return values is not None
    for word in words[1:]:
        if word not in model.model_fields:
            return False
        kind = model.model_fields[word].annotation
        model = next((one for one in (kind, *get_args(kind)) if hasattr(one, "model_fields")), None)
    return True


@pytest.fixture(scope="module")
def promtool() -> str:
    """Give Prometheus' own checker, or skip visibly without it."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["check", "rules", *map(str, ALERTS)],
        ["check", "config", str(MONITORING / "prometheus.yml")],
        ["test", "rules", *map(str, CASES)],
    ],
    ids=["rules", "configuration", "cases"],
)
def test_prometheus_finds_nothing_wrong(promtool: str, words: list[str]) -> None:
    done = subprocess.run([promtool, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: dict[str, Any]) -> None:
    fires = set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for one in case["alert_rule_test"]:
                if one["alertname"] == alert["alert"]:
                    severities = {expected["exp_labels"]["severity"] for expected in one["exp_alerts"]}
                    fires.add(alert["labels"]["severity"] in severities)
    assert fires == {True, False}
