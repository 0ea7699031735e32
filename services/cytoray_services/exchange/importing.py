"""Import: from a bundle folder, a ZIP of one, or a BioImage Model Zoo package to a bundle folder.

A package that Cytoray made gives back the bundle that is attached to it. From any other package the network is taken
as an ONNX graph: see :mod:`cytoray_services.exchange.zoo.foreign`.
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
from cytoray_services.exchange.zoo.foreign import bundle_of_package
from cytoray_services.exchange.zoo.foreign_weights import Consent
from cytoray_services.exchange.zoo.package import BUNDLE, DESCRIPTION

_DESCRIPTIONS = (DESCRIPTION, "rdf.yaml", "model.yaml")  # the name in the format, and its older ones

Origin = Literal["bundle", "cytoray package", "foreign package"]


@dataclass(frozen=True)
class Imported:
    """An imported bundle.

    Attributes
    ----------
    bundle
        The bundle, in a temporary folder.
    origin
        The kind of the source.
    tags
        Tags for the version, such as who allowed code to run.
    """

    bundle: Bundle
    origin: Origin
    tags: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def opened(source: str | Path, consent: Consent | None = None) -> Iterator[Imported]:
    """Open a source of an import as a bundle that has passed its self-test.

    Parameters
    ----------
    source
        A bundle folder, a ZIP archive of one, or a Model Zoo package as a folder or as an archive.
    consent
        Consent to run code of the package, or None.

    Raises
    ------
    MissingFileError
        `source` does not exist.
    BundleError
        It is none of these, damaged, or malicious.
    RequestError
        The package needs code to run without consent, or is not supported.
    """
    path = Path(source).expanduser()
    if "://" in str(source) or not path.exists():
        raise MissingFileError(
            f"expected a bundle or a Model Zoo package, got nothing at {source}",
            field=str(source),
            hint="addresses are not supported: download it first" if "://" in str(source) else None,
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
            f"{source} contains neither {SPEC} nor {' nor '.join(_DESCRIPTIONS)}",
            field=str(source),
            hint="use a bundle folder, a ZIP of one, or a BioImage Model Zoo package",
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
                hint="the package was changed after its export; export it again",
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
        It is not a plain YAML mapping.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BundleError(f"expected plain YAML in {path.name}: {error}", field=path.name) from error
    if not isinstance(document, dict):
        raise BundleError(f"expected {path.name} to contain a mapping, got {type(document).__name__}", field=path.name)
    return document


def _only_folder(folder: Path) -> Path:
    """Return the single top-level folder of an archive, if there is one; otherwise `folder`."""
    entries = list(folder.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _refuse_links(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_symlink():
            raise BundleError(f"expected a file, {path} is a link", field=str(path), hint="copy the file itself")
