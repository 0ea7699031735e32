"""Commands that only read create nothing, and say where they looked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cytoray_services.commands.root import main

READING = [
    ("models list", "mlflow.db", 0),
    ("models list --json", "", 0),
    ("models show nuclei", "mlflow.db", 2),
    ("models show nuclei@champion", "mlflow.db", 2),
    ("models promote nuclei/1", "mlflow.db", 2),
    ("models canary nuclei 1", "mlflow.db", 2),
    ("models export nuclei --to out", "mlflow.db", 2),
    ("models rollback nuclei", "mlflow.db", 2),
    ("evaluate nuclei nothing", "mlflow.db", 2),
    ("predict nuclei nothing.tif --out out", "mlflow.db", 2),
    ("diagnose nuclei", "mlflow.db", 2),
    ("tokens list", "tokens.json", 0),
    ("tokens revoke ada", "tokens.json", 2),
    ("tokens rotate ada", "tokens.json", 2),
    ("data check nothing", "nothing", 2),
    ("data hash nothing", "nothing", 2),
    ("train nothing.yaml", "nothing.yaml", 2),
]


def test_a_folder_that_is_no_bundle_is_distinguished_from_a_model_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CYTORAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "images").mkdir()
    with pytest.raises(SystemExit):
        main(["predict", "images", "images", "--out", "out"])
    said = capsys.readouterr().err
    assert "there is no model 'images'" in said
    assert "the folder images exists but contains no bundle.yaml" in said


@pytest.mark.slow
@pytest.mark.parametrize(("line", "place", "status"), READING, ids=[line for line, _, _ in READING])
def test_a_command_that_reads_creates_nothing_and_says_where_it_looked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str,
    place: str,
    status: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CYTORAY_HOME", "MLFLOW_TRACKING_URI", "CYTORAY_TOKENS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit) as ended:
        main(line.split())
    said = capsys.readouterr()
    assert ended.value.code == status, said.err
    assert place in said.out + said.err
    if status:
        words = line.split()
        asked = words[1] if words[0] in ("evaluate", "predict", "diagnose", "train") else words[2]
        assert asked in said.err
    assert list(tmp_path.iterdir()) == []
