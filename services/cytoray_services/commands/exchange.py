"""``cytoray models export`` and ``import``: write a model for other programs, and register a model from a file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.commands.output import JsonOption, print_json
from cytoray_services.settings import load_settings

if TYPE_CHECKING:
    from cytoray_analysis.bundle import Bundle
    from cytoray_services.registry import ModelVersion


class Format(StrEnum):
    """The format of an exported model."""

    BIOIMAGEIO = "bioimageio"
    ONNX = "onnx"
    BUNDLE = "bundle"


_SUFFIX = {Format.BIOIMAGEIO: "", Format.ONNX: ".onnx", Format.BUNDLE: ".zip"}
_LIBRARIES = {Format.BIOIMAGEIO: ("onnx", "onnxruntime", "ruyaml"), Format.ONNX: ("onnx", "onnxruntime")}


def export_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME, NAME@ALIAS, NAME/VERSION or a bundle folder.")],
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER|FILE", help="Target folder, or FILE.zip for a packed package.")
    ],
    form: Annotated[Format, typer.Option("--format", help="Format to write.")] = Format.BIOIMAGEIO,
    author: Annotated[list[str] | None, typer.Option("--author", help="Name of an author; repeatable.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Licence, such as CC-BY-4.0: https://spdx.org/licenses")
    ] = None,
    cite: Annotated[
        list[str] | None, typer.Option("--cite", metavar="DOI", help="Publication to cite; repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write a model for other programs (Model Zoo package, ONNX) or for another registry (bundle).

    Example: cytoray models export nuclei@champion --to nuclei.zip --author "Ada Lovelace"
    """
    _require(form)
    from cytoray_services.registry import load_bundle

    bundle, version = load_bundle(model, load_settings())
    if form is not Format.BIOIMAGEIO and (author or licence or cite):
        raise RequestError(
            f"--author, --licence and --cite have no effect with --format {form.value}", field="--format"
        )
    facts: dict[str, Any] = {
        "model": bundle.spec.name if version is None else version.reference,
        "digest": bundle.digest,
        "format": form.value,
    }
    with _as_known(bundle, version, form) as known:
        facts |= _write(known, version, to, form, (author or [], licence, cite or []))
    if json:
        print_json(facts)
        return
    typer.echo(f"{facts['model']} ({bundle.digest[:12]}) is now {facts['path']}")
    if "deviation" in facts:
        shapes = ", ".join("×".join(map(str, shape)) for shape in facts["shapes"])
        typer.echo(f"ONNX opset {facts['opset']}, deviation {facts['deviation']:.1e} of the outputs' range on {shapes}")
    if "format_version" in facts:
        typer.echo(f"valid BioImage Model Zoo package, model description {facts['format_version']}")


def import_model(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A bundle folder, a ZIP of one, or a Model Zoo package.")
    ],
    name: Annotated[
        str | None, typer.Option("--name", help="Name to register it under.", show_default="the name in the file")
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the code of the package once; user and time are recorded.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Register a model from a file or folder as candidate.

    Example: cytoray models import nuclei.zip --name nuclei
    """
    from cytoray_services.exchange import Consent, opened, record_of_bundle
    from cytoray_services.registry import Registry, whoami
    from cytoray_services.registry.offline_run import KEPT, deliver, has_kept

    with opened(path, Consent(whoami()) if allow_code else None) as imported:
        record = record_of_bundle(imported.bundle)
        tags = {"import.origin": imported.origin, "import.file": path.name, **imported.tags}
        tags |= {"import.reference": record.reference} if record.reference else {}
        bundle, registry, kept = imported.bundle, Registry.open(load_settings()), path.absolute().parent / KEPT
        # Of a training run whose registry was unreachable: its run comes first, so that the version refers to it.
        run_id, facts = deliver(registry.start_run, kept) if path.is_dir() and has_kept(kept) else (None, {})
        chosen = name or facts.get("name") or bundle.spec.name
        metrics = facts.get("metrics") or record.metrics
        version = registry.register(
            bundle.folder, chosen, run_id=run_id, tags={**record.carried, **tags}, metrics=metrics
        )
        if record.recipe and run_id is None and version.run_id is not None:
            registry.run(version.run_id).log_text(record.recipe, "recipe.yaml")
    if json:
        print_json(
            {
                "model": version.name,
                "version": version.version,
                "aliases": version.aliases,
                "digest": version.digest,
                "origin": imported.origin,
                "metrics": version.metrics,
                "tags": tags,
            }
        )
        return
    typer.echo(f"{path.name} ({imported.origin}) is now {version.reference} ({version.digest[:12]})")
    if version.metrics:
        typer.echo("scores: " + "  ".join(f"{score} {value:.3f}" for score, value in version.metrics.items()))
    if "import.code_allowed_by" in tags:
        typer.echo(f"its code ran once, allowed by {tags['import.code_allowed_by']}: {tags['import.code']}")


@contextmanager
def _as_known(bundle: Bundle, version: ModelVersion | None, form: Format) -> Iterator[Bundle]:
    """Yield a bundle with its record in the registry; a folder contains its own record."""
    if version is None:
        yield bundle
        return
    from cytoray_services.exchange import leaving, record_of_version
    from cytoray_services.registry import Registry

    # Packages and graphs may be published; the folder names in a recipe stay private.
    record = record_of_version(version, Registry.open(load_settings()), recipe=form is Format.BUNDLE)
    with leaving(bundle, record) as known:
        yield known


def _write(
    bundle: Bundle,
    version: ModelVersion | None,
    to: Path,
    form: Format,
    given: tuple[list[str], str | None, list[str]],
) -> dict[str, Any]:
    from cytoray_services.exchange import credits_of, export_bundle, export_onnx, export_package

    reference = None if version is None else version.reference
    suffix = _SUFFIX[form]
    target = to if not suffix or to.suffix == suffix else to / f"{bundle.spec.name}{suffix}"
    if form is Format.BUNDLE:
        return {"path": export_bundle(bundle, target)}
    if form is Format.ONNX:
        onnx = export_onnx(bundle, target, reference=reference)
        written: dict[str, Any] = {"path": onnx.path}
    else:
        authors, licence, cite = given
        named = credits_of(bundle.spec, authors=authors, licence=licence, cite=cite)
        package = export_package(bundle, target, named, reference=reference)
        onnx = package.onnx
        written = {"path": package.path, "format_version": package.format_version}
    return written | {"opset": onnx.opset, "deviation": onnx.deviation, "shapes": onnx.shapes}


def _require(form: Format) -> None:
    missing = [name for name in _LIBRARIES.get(form, ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise PlatformError(
            f"--format {form.value} needs {', '.join(missing)}, not installed here",
            hint="pip install 'cytoray[exchange]'",
        )
