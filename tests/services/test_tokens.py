"""API tokens: only digests are kept, and a running service follows the file."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cytoray_analysis.errors import MissingFileError, PlatformError, RequestError
from cytoray_services.commands.root import main
from cytoray_services.tokens.scopes import Scope
from cytoray_services.tokens.tokens import TokenFile, create_token, read_tokens, revoke_token, rotate_token

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Say where the tokens are kept."""
    return tmp_path / "home" / "tokens.json"


def test_the_file_holds_no_secret_and_only_its_owner_may_read_it(path: Path) -> None:
    text, token = create_token(path, "lab", ("predict", "submit"), days=90, now=NOW)
    assert text.startswith(f"cyt_{token.id}_")
    assert len(text.rpartition("_")[2]) >= 40 or text.count("_") > 2
    assert text.removeprefix(f"cyt_{token.id}_") not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [child.name for child in path.parent.iterdir() if child != path] == [".tokens.json.lock"]
    assert token.expires == NOW + timedelta(days=90)


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (("predict",), {"predict"}),
        (("predict", "submit"), {"predict", "submit"}),
        (("administer",), {"predict", "submit", "administer"}),
    ],
)
def test_who_administers_may_do_everything(path: Path, scopes: tuple[Scope, ...], allowed: set[Scope]) -> None:
    _, token = create_token(path, "lab", scopes, days=1)
    every: tuple[Scope, ...] = ("predict", "submit", "administer")
    assert {scope for scope in every if token.allows(scope)} == allowed


def test_only_the_whole_token_is_accepted(path: Path) -> None:
    text, token = create_token(path, "lab", ("predict",), days=1)
    file = TokenFile(path)
    assert file.find(text) == token
    wrong = [
        "",
        "cyt",
        "cyt_",
        f"cyt_{token.id}_",
        f"cyt_{token.id}",
        text[:-1],
        text + "a",
        text.upper(),
        token.digest,
    ]
    wrong += [text.replace("cyt_", "abc_"), "cyt_000000000000_" + text[17:], text * 100, "\udc80é"]
    assert [one for one in wrong if file.find(one) is not None] == []


def test_a_token_expires(path: Path) -> None:
    text, _ = create_token(path, "lab", ("predict",), days=2, now=NOW)
    file = TokenFile(path)
    assert file.find(text, now=NOW + timedelta(days=1, hours=23)) is not None
    assert file.find(text, now=NOW + timedelta(days=2)) is None
    create_token(path, "lab", ("submit",), days=2, now=NOW + timedelta(days=3))
    assert [token.scopes for token in read_tokens(path)] == [("submit",)]


def test_a_rotated_token_stays_valid_for_its_grace_period(path: Path) -> None:
    old, _ = create_token(path, "lab", ("predict", "submit"), days=10, now=NOW)
    new, token = rotate_token(path, "lab", grace=timedelta(hours=1), now=NOW + timedelta(days=5))
    file = TokenFile(path)
    assert token.expires == NOW + timedelta(days=15)
    assert token.scopes == ("predict", "submit")
    within, after = (NOW + timedelta(days=5, minutes=minutes) for minutes in (59, 60))
    assert [file.find(text, now=within) is not None for text in (old, new)] == [True, True]
    assert [file.find(text, now=after) is not None for text in (old, new)] == [False, True]
    rotate_token(path, "lab", grace=timedelta(0), now=NOW + timedelta(days=5, minutes=1))
    assert file.find(new, now=NOW + timedelta(days=5, minutes=1)) is None
    assert file.find(old, now=within) is None
    assert len(read_tokens(path)) == 2


def test_a_running_service_sees_new_and_revoked_tokens(path: Path) -> None:
    first, _ = create_token(path, "lab", ("predict",), days=1)
    file = TokenFile(path)
    second, _ = create_token(path, "clinic", ("predict",), days=1)
    assert file.find(second) is not None
    revoke_token(path, "lab")
    assert file.find(first) is None
    assert file.find(second) is not None
    assert pickle.loads(pickle.dumps(file)).find(second) is not None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tokens": [{}]}', '{"version": 2}', None])
def test_a_damaged_file_keeps_the_last_good_tokens_and_is_logged(
    path: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    text, _ = create_token(path, "lab", ("predict",), days=1)
    file = TokenFile(path)
    good = path.read_text()
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    assert file.find(text) is not None
    assert file.find(text) is not None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.write_text(good.replace("lab", "new"))
    found = file.find(text)
    assert found is not None
    assert found.name == "new"


def test_a_service_does_not_start_without_tokens_that_it_can_read(path: Path) -> None:
    with pytest.raises(MissingFileError) as missing:
        TokenFile(path)
    assert "cytoray tokens create" in str(missing.value.hint)
    path.parent.mkdir()
    path.write_text('{"tokens": [{"id": "secret"}]}')
    with pytest.raises(RequestError) as damaged:
        TokenFile(path)
    assert "secret" not in str(damaged.value)
    path.unlink()
    path.mkdir()
    with pytest.raises(PlatformError):
        TokenFile(path)


def test_tokens_made_at_the_same_time_are_all_kept(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: create_token(path, f"lab{number}", ("predict",), days=1)[0], range(24)))
    file = TokenFile(path)
    assert all(file.find(text) is not None for text in made)


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 65, "ä"])
def test_names_are_plain(path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        create_token(path, name, ("predict",), days=1)
    assert not path.exists()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, object]]:
    with pytest.raises(SystemExit) as ended:
        main(["tokens", *words, "--json"])
    return int(str(ended.value.code)), json.loads(capsys.readouterr().out)


@pytest.mark.usefixtures("cytoray_home")
def test_the_command_makes_lists_replaces_and_revokes(capsys: pytest.CaptureFixture[str]) -> None:
    status, made = run(capsys, "create", "lab", "--scope", "predict", "--scope", "submit", "--days", "3")
    assert (status, made["name"], made["scopes"]) == (0, "lab", ["predict", "submit"])
    status, listed = run(capsys, "list")
    assert str(made["token"]).rpartition("_")[2] not in json.dumps(listed)
    status, error = run(capsys, "create", "lab", "--scope", "predict")
    assert (status, error["field"]) == (2, "name")
    status, error = run(capsys, "create", "new", "--scope", "root")
    assert status == 2
    status, new = run(capsys, "rotate", "lab", "--grace-hours", "0")
    assert new["token"] != made["token"]
    assert run(capsys, "revoke", "lab") == (0, {"revoked": "lab"})
    assert run(capsys, "revoke", "lab")[0] == 2
    assert run(capsys, "list") == (0, {"tokens": []})


def test_a_token_goes_to_standard_output_alone(tmp_path: Path) -> None:
    program = "from cytoray_services.commands.tokens import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, "create", "lab", "--scope", "predict", "--file", str(tmp_path / "t.json")],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert TokenFile(tmp_path / "t.json").find(done.stdout.strip()) is not None
    assert done.stdout.strip() not in done.stderr


@pytest.mark.parametrize(
    ("scopes", "got"),
    [
        (("sumbit",), "sumbit"),
        (("predict", "sumbit"), "sumbit"),
        (("Predict",), "Predict"),
        (("predict,submit",), "predict,"),
    ],
)
def test_a_scope_that_does_not_exist_is_refused_and_the_known_ones_are_listed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], scopes: tuple[str, ...], got: str
) -> None:
    words = [word for scope in scopes for word in ("--scope", scope)]
    with pytest.raises(SystemExit) as ended:
        main(["tokens", "create", "ada", *words, "--file", str(tmp_path / "tokens.json")])
    assert ended.value.code == 2
    said = capfd.readouterr().err
    assert got in said
    assert "predict, submit, administer" in said
    assert not (tmp_path / "tokens.json").exists()


def test_scopes_are_taken_in_any_order_and_once(tmp_path: Path) -> None:
    _, token = create_token(tmp_path / "tokens.json", "ada", ("submit", "predict", "submit"), days=1)
    assert token.scopes == ("predict", "submit")
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_a_token_is_revoked_although_the_disk_is_full(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    script = """
set -e
mount -t tmpfs -o size=32k tmpfs "$1" || exit 77
"$2" -c 'import sys
from pathlib import Path
from datetime import timedelta
from cytoray_analysis.errors import PlatformError
from cytoray_services.tokens.tokens import TokenFile, create_token, read_tokens, revoke_token
path = Path(sys.argv[1], "tokens.json")
kept, _ = create_token(path, "kept", ("predict",), days=1)
gone, _ = create_token(path, "gone", ("predict",), days=1)
running = TokenFile(path)
with open(path.with_name("full"), "wb", buffering=0) as file:
    try:
        while True:
            file.write(bytes(4096))
    except OSError:
        pass
try:
    create_token(path, "more", ("predict",), days=1)
    sys.exit("the disk is not full")
except PlatformError:
    pass
revoke_token(path, "gone")
assert [token.name for token in read_tokens(path)] == ["kept"]
assert running.find(kept) is not None
assert running.find(gone) is None
assert sorted(one.name for one in path.parent.iterdir()) == [".tokens.json.lock", "full", "tokens.json"]
' "$1"
"""
    ran = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path / "disk"), sys.executable],
        capture_output=True,
        text=True,
    )
    if ran.returncode == 77 or "Operation not permitted" in ran.stderr:
        pytest.skip("no file system can be mounted here")
    assert ran.returncode == 0, ran.stderr


def test_a_token_may_be_for_some_models_and_for_the_jobs_of_a_team(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--scope", "submit:lab", "--scope", "predict:nuclei", "--scope", "predict:cells", "--file", str(path)]
    text = str(run(capsys, "create", "ada", *words)[1]["token"])
    token = TokenFile(path).find(text)
    assert token is not None
    assert token.scopes == ("predict:cells", "predict:nuclei", "submit:lab")
    assert (token.allows("predict"), token.allows("submit"), token.allows("administer")) == (True, True, False)
    with pytest.raises(SystemExit):
        main(["tokens", "list", "--file", str(path)])
    assert "predict:cells,predict:nuclei,submit:lab" in capsys.readouterr().out
    assert rotate_token(path, "ada", grace=timedelta(0))[1].scopes == token.scopes


@pytest.mark.parametrize(
    ("scope", "meant"),
    [
        ("predcit:cells", "predict:cells"),
        ("predicts", "predict"),
        ("predict:cells@champion", "predict:cells"),
        ("predict:cells/3", "predict:cells"),
        ("predict:", "repeat --scope"),
        ("predict:cells,nuclei", "one per --scope"),
        ("submit:Lab", "lower-case letters"),
        ("administer:lab", "write administer alone"),
        ("jobs", "repeat --scope"),
        ("", "repeat --scope"),
    ],
)
def test_what_is_no_scope_is_refused_with_what_was_meant(path: Path, scope: str, meant: str) -> None:
    with pytest.raises(RequestError) as caught:
        create_token(path, "ada", (scope,), days=1)
    assert meant in str(caught.value.hint)
    assert not path.exists()
