"""Options that would be of no effect are refused and named, before anything is looked up."""

from __future__ import annotations

import pytest

from cytoray_services.commands.root import main

IDLE = [
    ("serve --threads 2", "--threads has no effect without MODEL"),
    ("serve --insecure-local --replicas 2 --device cpu", "--replicas, --device have no effect without MODEL"),
    ("predict m x.tif --out o --url http://127.0.0.1:1 --memory 64", "--memory has no effect with --url"),
    ("predict m x.tif --out o --url http://127.0.0.1:1 --device cpu", "--device has no effect with --url"),
    ("models promote m/1 --split test", "--split has no effect without --on"),
    ("models promote m/1 --by kind --replace-set", "--by, --replace-set have no effect without --on"),
    ("models promote m/1 --alias beta --force --reason r", "--force has no effect with --alias beta"),
    ("models promote m/1 --alias beta --on data", "--on has no effect with --alias beta"),
    ("models canary m --stop --steps 5,100", "--steps has no effect with --stop"),
    ("models shadow m --stop --share 0.5", "--share has no effect with --stop"),
    ("jobs submit r.yaml --channel dna --format csv", "--format, --channel have no effect with a recipe"),
    ("jobs submit r.yaml --url http://127.0.0.1:1", "--url has no effect with a recipe"),
    ("jobs submit r.yaml --dry-run --follow", "--follow has no effect with --dry-run"),
    ("jobs list --on local --url http://127.0.0.1:1", "--url has no effect with --on"),
    ("jobs show j --on local --url http://127.0.0.1:1", "--url has no effect with --on"),
    ("jobs logs j --on local --url http://127.0.0.1:1", "--url has no effect with --on"),
    ("jobs stop j --on local --url http://127.0.0.1:1", "--url has no effect with --on"),
]


@pytest.mark.slow
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
    assert "there is no file nothing.yaml" in capsys.readouterr().err
