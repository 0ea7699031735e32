"""Import: from a bundle folder, a ZIP of one, or a BioImage Model Zoo package to a bundle folder.

A package that Cytoray made gives back the bundle that is attached to it. From any other package the network is taken
as an ONNX graph: see :mod:`cytoray_services.exchange.foreign`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from cytoray_analysis.bundle import SPEC, Bundle
from cytoray_analysis.errors import BundleError, MissingFileError
from cytoray_services.exchange.archive import unpack_archive
from cytoray_services.exchange.foreign import bundle_of_package
from cytoray_services.exchange.foreign_weights import Consent
from cytoray_services.exchange.package import BUNDLE, DESCRIPTION

_DESCRIPTIONS = (DESCRIPTION, "rdf.yaml", "model.yaml")  # the format's name for it, and its older ones

Origin = Literal["bundle", "cytoray package", "foreign package"]


@dataclass(frozen=True)
class Imported:
    """A bundle that came from outside.

    Attributes
    ----------
    bundle
        The bundle, in a folder that is removed when the import is over.
    origin
        What it came as.
    tags
        Facts for the version's record, such as whose word let foreign code run.
    """

    bundle: Bundle
    origin: Origin
    tags: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def opened(source: str | Path, consent: Consent | None = None) -> Iterator[Imported]:
    """Open what somebody wants to import, as a bundle that has passed its self-test.

    Parameters
    ----------
    source
        A bundle folder, a ZIP archive of one, or a Model Zoo package as a folder or as an archive.
    consent
        Whose word lets code of the package run; None for nobody's.

    Raises
    ------
    MissingFileError
        There is nothing at `source`.
    BundleError
        It is none of these, or damaged, or made to harm.
    RequestError
        The package needs code to run that nobody has allowed, or something of it that Cytoray does not have.
    """
    path = Path(source).expanduser()
    if "://" in str(source) or not path.exists():
        raise MissingFileError(
            f"expected a bundle or a Model Zoo package, got nothing at {source}",
            field=str(source),
            hint="addresses are not followed: download it first" if "://" in str(source) else None,
        )
    with tempfile.TemporaryDirectory(prefix="cytoray-import-") as scratch:
        folder = path
        if path.is_file():
            folder = Path(scratch, "unpacked")
            folder.mkdir()
            unpack_archive(path, folder)
            folder = _only_folder(folder)
        imported = _open_folder(path, folder, Path(scratch), consent)
        imported.bundle.self_test()
        yield imported


def _open_folder(source: Path, folder: Path, scratch: Path, consent: Consent | None) -> Imported:
    if (folder / SPEC).is_file():
        return Imported(Bundle.load(folder), "bundle")
    description = next((folder / name for name in _DESCRIPTIONS if (folder / name).is_file()), None)
    if description is None:
        raise BundleError(
            f"{source} holds neither {SPEC} nor {' nor '.join(_DESCRIPTIONS)}",
            field=str(source),
            hint="expected a bundle folder, a ZIP of one, or a BioImage Model Zoo package",
        )
    _refuse_links(folder)
    ours = _our_digest(description)
    if ours is not None and (folder / BUNDLE).is_file():
        unpacked = scratch / "bundle"
        unpacked.mkdir()
        unpack_archive(folder / BUNDLE, unpacked)
        bundle = Bundle.load(unpacked)
        if bundle.digest != ours:
            raise BundleError(
                f"expected the attached bundle to have the digest {ours[:12]}…, got {bundle.digest[:12]}…",
                field=BUNDLE,
                hint="the package was changed after its export; ask for it again",
            )
        return Imported(bundle, "cytoray package")
    bundle, tags = bundle_of_package(description, scratch / "bundle", consent)
    return Imported(bundle, "foreign package", tags)


def _our_digest(description: Path) -> str | None:
    config = read_yaml(description).get("config")
    ours = config.get("cytoray") if isinstance(config, dict) else None
    digest = ours.get("digest") if isinstance(ours, dict) else None
    return digest if isinstance(digest, str) else None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a description as plain data.

    Raises
    ------
    BundleError
        It is no plain YAML mapping.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"{path.name} is not plain YAML: {error}", field=path.name) from error
    if not isinstance(document, dict):
        raise BundleError(f"expected {path.name} to hold a mapping, got {type(document).__name__}", field=path.name)
    return document


def _only_folder(folder: Path) -> Path:
    """Return the one folder that everything lies in, as archivers like to pack; else `folder`."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _refuse_links(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise BundleError(f"{path} is a link", field=str(path), hint="links are refused; copy the file itself")
