"""Options that would be of no effect are refused and named, before anything is looked up."""

from __future__ import annotations

import pytest

from cytoray_services.commands.root import main

IDLE = [
    ("serve --threads 2", "--threads is of no use without MODEL"),
    ("serve --insecure-local --replicas 2 --device cpu", "--replicas, --device are of no use without MODEL"),
    ("predict m x.tif --out o --url http://127.0.0.1:1 --memory 64", "--memory is of no use with --url"),
    ("predict m x.tif --out o --url http://127.0.0.1:1 --device cpu", "--device is of no use with --url"),
    ("models promote m/1 --split test", "--split is of no use without --on"),
    ("models promote m/1 --by kind --replace-set", "--by, --replace-set are of no use without --on"),
    ("models promote m/1 --alias beta --force --reason r", "--force is of no use with --alias beta"),
    ("models promote m/1 --alias beta --on data", "--on is of no use with --alias beta"),
    ("models canary m --stop --steps 5,100", "--steps is of no use with --stop"),
    ("models shadow m --stop --share 0.5", "--share is of no use with --stop"),
    ("jobs submit r.yaml --channel dna --format csv", "--format, --channel are of no use with a recipe"),
    ("jobs submit r.yaml --url http://127.0.0.1:1", "--url is of no use with a recipe"),
    ("jobs submit r.yaml --dry-run --follow", "--follow is of no use with --dry-run"),
    ("jobs submit m in out --team lab", "--team is of no use with a model"),
    ("jobs list --on local --url http://127.0.0.1:1", "--url is of no use with --on"),
    ("jobs show j --on local --url http://127.0.0.1:1", "--url is of no use with --on"),
    ("jobs logs j --on local --url http://127.0.0.1:1", "--url is of no use with --on"),
    ("jobs stop j --on local --url http://127.0.0.1:1", "--url is of no use with --on"),
]


@pytest.mark.parametrize(("line", "said"), IDLE, ids=[line for line, _ in IDLE])
def test_options_of_no_effect_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    monkeypatch.delenv("CYTORAY_URL", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_variable_is_no_option(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CYTORAY_URL", "http://127.0.0.1:1")
    with pytest.raises(SystemExit):
        main(["jobs", "submit", "nothing.yaml"])
    assert "there is no recipe at nothing.yaml" in capsys.readouterr().err
