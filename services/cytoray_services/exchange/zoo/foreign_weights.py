"""The weights of a foreign package as an ONNX graph, with or without running its code."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from cytoray_analysis.errors import BundleError, RequestError
from cytoray_services.exchange.onnx_export import trace_graph

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Consent:
    """Consent of a user to run the code of a package.

    Attributes
    ----------
    who
        User and host.
    """

    who: str


def graph_of_package(
    package: Any, folder: Path, example: Tensor, consent: Consent | None
) -> tuple[bytes, str, dict[str, str]]:
    """Return the weights as an ONNX graph; ONNX is preferred, because it is data.

    Parameters
    ----------
    package
        The description, a ``ModelDescr``.
    folder
        Folder of its files.
    example
        A scaled test input (1, C, spatial…) float32.

    Returns
    -------
    graph, source, tags
        The graph; its source; the record of code that ran.

    Raises
    ------
    RequestError
        All weights need code to run without consent, or another library.
    BundleError
        A file is damaged or differs from the description.
    """
    weights = package.weights
    if weights.onnx is not None:
        if weights.onnx.external_data is not None:
            raise RequestError(
                "expected ONNX weights in one file, the package has two",
                field="weights.onnx.external_data",
                hint="join them: onnx.save_model(onnx.load(path), path, save_as_external_data=False)",
            )
        return local_file(weights.onnx, folder).read_bytes(), "onnx", {}
    kind, entry = "torchscript", weights.torchscript
    if entry is None:
        kind, entry = "pytorch_state_dict", weights.pytorch_state_dict
    if entry is None:
        formats = [name for name in type(weights).model_fields if getattr(weights, name) is not None]
        raise RequestError(
            f"expected weights as ONNX, TorchScript or a PyTorch state, got {', '.join(formats)}",
            field="weights",
            hint="convert them with bioimageio.core: bioimageio add-weights",
        )
    path = local_file(entry, folder)
    if consent is None:
        raise RequestError(
            f"the package has weights as {kind} only: its code must run on this machine to use them",
            field="weights",
            hint="if you trust its authors, add --allow-code (user and time are recorded)",
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    tags = {
        "import.code": f"{kind} {path.name} sha256 {digest}",
        "import.code_allowed_by": consent.who,
        "import.code_allowed_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    logger.warning("running code of the package %s, allowed by %s: %s", package.name, consent.who, tags["import.code"])
    network = _torchscript(path) if kind == "torchscript" else _from_source(entry, path, folder)
    return trace_graph(network.eval(), example), kind, tags


def _torchscript(path: Path) -> nn.Module:
    try:
        network: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        raise BundleError(
            f"expected TorchScript in {path.name}: {str(error).strip().splitlines()[0]}", field=path.name
        ) from error
    return network


def _from_source(entry: Any, path: Path, folder: Path) -> nn.Module:
    """Build the network from the Python source of the package, or an installed library, and load its state."""
    architecture = entry.architecture
    if hasattr(architecture, "import_from"):
        try:
            module = importlib.import_module(architecture.import_from)
        except ImportError as error:
            raise RequestError(
                f"the package needs the library {architecture.import_from}, which is not installed: {error}",
                field="weights.pytorch_state_dict.architecture",
            ) from error
    else:
        source = local_file(architecture, folder)
        plan = importlib.util.spec_from_file_location(f"cytoray_imported_{source.stem}", source)
        if plan is None or plan.loader is None:
            raise BundleError(f"expected Python source, got {source.name}", field=source.name)
        module = importlib.util.module_from_spec(plan)
        plan.loader.exec_module(module)
    build = getattr(module, str(architecture.callable), None)
    if build is None:
        raise BundleError(f"the package's source has no {architecture.callable}", field="architecture.callable")
    try:
        network: nn.Module = build(**architecture.kwargs)
        # The state is always data: no pickle runs for it.
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=entry.strict)
    except (TypeError, ValueError, RuntimeError, UnpicklingError) as error:
        raise BundleError(
            f"the network of the package cannot be built: {str(error).strip().splitlines()[0]}",
            field="weights.pytorch_state_dict",
        ) from error
    return network


def local_file(entry: Any, folder: Path) -> Path:
    """Return a file of the package, after a check of its hash.

    Raises
    ------
    BundleError
        It is an address, outside the package, missing, or differs from the description.
    """
    name = str(getattr(entry.source, "path", entry.source))
    path = folder / name
    if "://" in name or not path.resolve().is_relative_to(folder.resolve()) or path.is_symlink():
        raise BundleError(
            f"expected a file inside the package, got {name!r}",
            field=name,
            hint="addresses are not downloaded; get the package as one ZIP archive",
        )
    if not path.is_file():
        raise BundleError(f"the package lacks {name}", field=name)
    if entry.sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != str(entry.sha256):
        raise BundleError(f"the hash of {name} differs from the description of the package", field=name)
    return path
