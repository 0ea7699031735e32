"""Errors of disks, databases and memory become sentences that name the path; other errors do not."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest
from safetensors import SafetensorError
from sqlalchemy.exc import OperationalError

from cytoray_analysis.errors import PlatformError
from cytoray_services.commands.machine_faults import machine_fault
from cytoray_services.registry.database_faults import database_fault


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST],
)
def test_an_error_of_the_system_names_the_path_and_what_to_do(number: int) -> None:
    fault = machine_fault(OSError(number, os.strerror(number), "/data/out/a.tif"))
    assert fault is not None
    assert fault.message.startswith("/data/out/a.tif: ")
    assert fault.field == "/data/out/a.tif"
    assert fault.hint


def write_below(folder: Path) -> None:
    target = folder / "answer.tif"
    raise OSError(errno.EIO, f"cannot write {target.name[:0]}")


def test_the_path_is_found_where_the_error_has_none(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot write") as raised:
        write_below(tmp_path)
    fault = machine_fault(raised.value)
    assert fault is not None
    assert str(tmp_path) in fault.message


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk is full"),
        (RuntimeError("write failed: Disk quota exceeded"), "quota is exceeded"),
        (MemoryError(), "not enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "not enough memory"),
        (sqlite3.DatabaseError("database disk image is malformed"), "damaged"),
        (sqlite3.OperationalError("no such table: experiments"), "damaged"),
        (sqlite3.OperationalError("database is locked"), "another process"),
        (sqlite3.OperationalError("unable to open database file"), "cannot be opened"),
        (OperationalError("SELECT 1", {}, sqlite3.OperationalError("database or disk is full")), "disk is full"),
    ],
)
def test_libraries_that_say_it_in_their_own_words_are_understood(error: Exception, says: str) -> None:
    fault = machine_fault(error)
    assert isinstance(fault, PlatformError)
    assert says in fault.message
    assert "\n" not in fault.message


def test_the_cause_of_an_error_counts() -> None:
    error = RuntimeError("the export failed")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device", "/data/model.onnx")
    fault = machine_fault(error)
    assert fault is not None
    assert "/data/model.onnx" in fault.message


@pytest.mark.parametrize(
    "error",
    [
        ValueError("expected 3 axes"),
        KeyError("weights"),
        ZeroDivisionError("division by zero"),
        RuntimeError("shapes differ"),
        FileNotFoundError(errno.ENOENT, "No such file", str(Path(__file__).parents[2] / "services" / "lost.yaml")),
        OSError("something else"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
    ],
)
def test_a_fault_of_ours_stays_one(error: Exception) -> None:
    assert machine_fault(error) is None


def test_what_no_database_says_is_no_fault_of_one() -> None:
    assert database_fault("the metric is no number") is None
