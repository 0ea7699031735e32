"""The built page in the package is what its sources give."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
BUILT = REPOSITORY / "serving" / "cytoray_serving" / "page"
NPM = shutil.which("npm")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_page_is_small_and_names_no_other_host() -> None:
    files = content(BUILT)
    assert sum(map(len, files.values())) < 2_000_000
    assert not [name for name in files if name.endswith(".map")]
    assert b"https://" not in files["index.html"]
    assert b'"resolved"' not in (REPOSITORY / "serving" / "page" / "package-lock.json").read_bytes()


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(NPM is None, reason="needs Node, to build the page again")
def test_the_sources_give_the_page_that_is_in_the_package(tmp_path: Path) -> None:
    assert NPM is not None
    sources = tmp_path / "serving" / "page"
    shutil.copytree(REPOSITORY / "serving" / "page", sources, ignore=shutil.ignore_patterns("node_modules"))
    for words in (["ci", "--no-audit", "--no-fund"], ["test"], ["run", "build"]):
        done = subprocess.run([NPM, *words], cwd=sources, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert content(tmp_path / "serving" / "cytoray_serving" / "page") == content(BUILT), "run make page"
