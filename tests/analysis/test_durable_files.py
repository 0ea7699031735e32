"""What is written is on the disk before it has its name, and its name before anybody relies on it.

The system calls of a process are watched with strace: what a loss of power would leave cannot be tried here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


def calls(script: str, folder: Path) -> list[str]:
    """Return the system calls of a script that touch the disk, in their order, with the paths of descriptors."""
    log = folder / "strace"
    watched = "fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir"
    command = ["strace", "-f", "-y", "-o", str(log), "-e", f"trace={watched}", sys.executable, "-c", script]
    subprocess.run([*command, str(folder)], check=True, timeout=120)
    return [line.partition(" ")[2] for line in log.read_text().splitlines() if str(folder) in line]


def places(found: list[str], *patterns: str) -> list[int]:
    return [next(number for number, call in enumerate(found) if re.search(pattern, call)) for pattern in patterns]


def test_a_record_is_on_the_disk_before_it_has_its_name_and_its_name_afterwards(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from cytoray_analysis.files import write_whole; "
        "write_whole(Path(sys.argv[1], 'home', 'a.json'), 'text')"
    )
    found = calls(script, tmp_path)
    order = places(found, r"fsync\(.*home/\.a\.json\.", r"rename.*\.a\.json\.\w+.*a\.json", r"fsync\(.*home>")
    assert order == sorted(order), found


def test_what_waits_for_its_batch_is_not_waited_for_one_by_one(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from cytoray_analysis.files import sync_disk, write_whole; "
        "home = Path(sys.argv[1]); "
        "[write_whole(home / f'{n}.tif', b'1', durable=False) for n in range(9)]; sync_disk(home)"
    )
    found = calls(script, tmp_path)
    assert sum("rename" in call for call in found) == 9
    assert [call for call in found if "sync" in call] == [found[-1]]
    assert found[-1].strip().startswith("syncfs(")


def test_the_files_of_a_folder_are_on_the_disk_before_the_old_one_goes(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from cytoray_analysis.files import draft_folder, replace_whole\n"
        "home = Path(sys.argv[1], 'bundle')\n"
        "for text in ('old', 'new'):\n"
        "    draft = draft_folder(home)\n"
        "    (draft / 'inner').mkdir()\n"
        "    (draft / 'inner' / text).write_text(text)\n"
        "    replace_whole(draft, home)\n"
    )
    found = calls(script, tmp_path)
    order = places(found, r"fsync\(.*inner/new>", r"renameat2\(.*RENAME_EXCHANGE", r"unlinkat.*old")
    assert order == sorted(order), found
    assert [path.name for path in (tmp_path / "bundle" / "inner").iterdir()] == ["new"]
