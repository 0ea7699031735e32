"""``cytoray doctor``: check the installation and this machine, with a remedy for each problem."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import typer
from packaging.requirements import Requirement

from cytoray_analysis.uris import without_secrets
from cytoray_services.address_space import LEAST_ADDRESS_SPACE, REMEDY, address_space
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.commands.requirements import installed_version, requirements_of
from cytoray_services.settings import Settings, load_settings

DISTRIBUTION = "cytoray"
USER_EXTRAS = ("train", "serve", "cluster", "formats")
LEAST_MEMORY = 4 * 2**30
LEAST_DISK = 5 * 2**30
LEAST_SHARED_MEMORY = 2**30
SECONDS_FOR_SERVER = 5.0


@dataclass(frozen=True)
class Check:
    """The result of one check.

    Parameters
    ----------
    name
        What was checked.
    status
        ``ok``, ``absent`` (an extra that is not installed), ``warning`` (works, but less well) or ``broken``.
    found
        What was found.
    remedy
        What to do, except for ``ok``.
    """

    name: str
    status: Literal["ok", "absent", "warning", "broken"]
    found: str
    remedy: str | None = None


def doctor(json: JsonOption = False) -> None:
    """Check this installation and this machine. The exit status is 1 if something essential is broken.

    Example: cytoray doctor
    """
    checks = examine(load_settings())
    healthy = all(check.status != "broken" for check in checks)
    if json:
        print_json({"healthy": healthy, "checks": checks})
    else:
        _print_table(checks)
    if not healthy:
        raise typer.Exit(1)


def examine(settings: Settings) -> list[Check]:
    """Check everything that Cytoray needs.

    Parameters
    ----------
    settings
        Settings with the home folder and the registry to check.

    Returns
    -------
    list of Check
        In the order in which they are shown.
    """
    return [
        Check("python", "ok", platform.python_version()),
        *check_packages(),
        check_device(),
        check_precision(),
        check_cores(),
        check_memory(),
        check_address_space(),
        check_shared_memory(),
        check_disk(settings.home),
        check_compiler(),
        check_home(settings.home),
        check_tracking(settings),
    ]


def check_packages() -> list[Check]:
    """Compare the installed packages with the requirements of the distribution and its extras."""
    checks: dict[str, Check] = {}
    for extra in ("", *USER_EXTRAS):
        for requirement in requirements_of(DISTRIBUTION, extra):
            checks.setdefault(requirement.name, _check_package(requirement, extra))
    return list(checks.values())


def _check_package(requirement: Requirement, extra: str) -> Check:
    found = installed_version(requirement)
    if found is None and extra:
        return Check(requirement.name, "absent", "not installed", f"pip install '{DISTRIBUTION}[{extra}]'")
    if found is not None and requirement.specifier.contains(found, prereleases=True):
        return Check(requirement.name, "ok", found)
    return Check(
        requirement.name,
        "broken",
        f"{found or 'not installed'}, expected {requirement.specifier or 'any version'}",
        f"pip install '{requirement.name}{requirement.specifier}'",
    )


def check_device() -> Check:
    """Name the device that networks run on."""
    import torch

    from cytoray_analysis.devices import choose_device

    device = choose_device()
    if device.type == "cuda":
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Check("device", "ok", f"cuda: {', '.join(names)}")
    if torch.version.cuda is not None and shutil.which("nvidia-smi"):
        return Check(
            "device",
            "warning",
            f"{device.type}, although an NVIDIA driver is installed",
            f"PyTorch was built for CUDA {torch.version.cuda}; compare with what nvidia-smi reports",
        )
    return Check("device", "ok", device.type)


def check_precision() -> Check:
    """Check whether the device supports bfloat16, which about doubles the speed."""
    from cytoray_analysis.devices import choose_device, choose_precision

    native = choose_precision(choose_device()) == "bf16"
    return Check("precision", "ok", "bf16" if native else "fp32; this device does not support bf16")


def check_cores() -> Check:
    """Count the cores that this process may use."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Check("cores", "ok", str(count))


def check_memory() -> Check:
    """Compare the free memory with what a small training run needs."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{_gib(memory.available)} free of {_gib(memory.total)}"
    if memory.available < LEAST_MEMORY:
        return Check("memory", "warning", found, f"training needs {_gib(LEAST_MEMORY)} free; close other programs")
    return Check("memory", "ok", found)


def check_address_space() -> Check:
    """Compare the limit of virtual memory of a process with what Ray's processes reserve."""
    limit = address_space()
    if limit is None:
        return Check("address space", "ok", "no limit")
    enough = limit >= LEAST_ADDRESS_SPACE
    return Check(
        "address space", "ok" if enough else "broken", f"{_gib(limit)} (ulimit -v)", None if enough else REMEDY
    )


def check_shared_memory() -> Check:
    """Compare the shared memory, where Ray stores its objects, with what Ray needs."""
    import psutil

    folder = Path("/dev/shm")  # noqa: S108 (checked, not written to)
    if not folder.is_dir():
        return Check("shared memory", "ok", "none on this system; Ray uses files")
    total = psutil.disk_usage(str(folder)).total
    if total < LEAST_SHARED_MEMORY:
        return Check(
            "shared memory",
            "warning",
            _gib(total),
            "Ray falls back to slower files; start a container with --shm-size=4g",
        )
    return Check("shared memory", "ok", _gib(total))


def check_disk(home: Path) -> Check:
    """Compare the free disk space of the home folder with what a small training run writes."""
    import psutil

    free = psutil.disk_usage(str(_nearest_existing(home))).free
    if free < LEAST_DISK:
        return Check("disk", "warning", f"{_gib(free)} free", f"free {_gib(LEAST_DISK)}, or move CYTORAY_HOME")
    return Check("disk", "ok", f"{_gib(free)} free")


def check_compiler() -> Check:
    """Find a C compiler, which DeepSpeed uses to build its faster optimizers at first use."""
    names = [name for name in (os.environ.get("CC"), "cc", "gcc", "clang") if name]
    found = next((path for path in map(shutil.which, names) if path), None)
    if found is None:
        return Check("compiler", "warning", "none found", "install gcc or clang, or set CC to the compiler")
    return Check("compiler", "ok", found)


def check_home(home: Path) -> Check:
    """Write a file to the home folder, or to its parent if it does not exist yet, and remove it."""
    folder = _nearest_existing(home)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Check("home", "ok", str(home) if folder == home else f"{home} (created at first use)")
    except OSError as error:
        return Check("home", "broken", f"{folder}: {error.strerror}", "set CYTORAY_HOME to a writable folder")


def check_tracking(settings: Settings) -> Check:
    """Check that the MLflow server answers; the SQLite registry needs none."""
    uri = settings.tracking_uri
    shown = without_secrets(uri)  # reports of the doctor are often sent to other people
    if not uri.startswith(("http://", "https://")):
        return Check("registry", "ok", shown)
    import httpx

    try:
        httpx.get(f"{uri.rstrip('/')}/health", timeout=SECONDS_FOR_SERVER).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        found = f"{shown}: {without_secrets(str(error))}"
        return Check("registry", "broken", found, "start the MLflow server or correct MLFLOW_TRACKING_URI")
    return Check("registry", "ok", shown)


def _nearest_existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def _print_table(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "absent": "dim", "warning": "yellow", "broken": "red"}
    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for check in checks:
        words = (check.name, check.found, check.remedy or "")
        table.add_row(Text(check.status, colours[check.status]), *map(Text, words))
    Console().print(table)
