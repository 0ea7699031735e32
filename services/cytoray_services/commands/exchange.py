"""``cytoray models export`` and ``import``: models that leave the registry, and such that come from outside."""

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
    """What a model is exported as."""

    BIOIMAGEIO = "bioimageio"
    ONNX = "onnx"
    BUNDLE = "bundle"


_SUFFIX = {Format.BIOIMAGEIO: "", Format.ONNX: ".onnx", Format.BUNDLE: ".zip"}
_LIBRARIES = {Format.BIOIMAGEIO: ("onnx", "onnxruntime", "ruyaml"), Format.ONNX: ("onnx", "onnxruntime")}


def export_model(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME, NAME@ALIAS, NAME/VERSION, or a bundle folder.")],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER|FILE", help="Where to; FILE.zip packs a package.")],
    form: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.BIOIMAGEIO,
    author: Annotated[list[str] | None, typer.Option("--author", help="A name; may be repeated.")] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="Such as CC-BY-4.0: https://spdx.org/licenses")
    ] = None,
    cite: Annotated[list[str] | None, typer.Option("--cite", metavar="DOI", help="May be repeated.")] = None,
    json: JsonOption = False,
) -> None:
    """Write a model for other programs (Model Zoo package, ONNX) or for another registry (bundle)."""
    _require(form)
    from cytoray_services.registry import load_bundle

    bundle, version = load_bundle(model, load_settings())
    if form is not Format.BIOIMAGEIO and (author or licence or cite):
        raise RequestError(f"--author, --licence and --cite are of no use to {form.value}", field="--format")
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
    name: Annotated[str | None, typer.Option("--name", help="The model to register it as; else its own name.")] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let code of the package run, once; recorded with who and when.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Register a model that comes from a file or folder; it becomes a candidate."""
    from cytoray_services.exchange import Consent, opened, record_of_bundle
    from cytoray_services.registry import Registry, whoami
    from cytoray_services.registry.kept_run import KEPT, deliver, has_kept

    with opened(path, Consent(whoami()) if allow_code else None) as imported:
        record = record_of_bundle(imported.bundle)
        tags = {"import.origin": imported.origin, "import.file": path.name, **imported.tags}
        tags |= {"import.reference": record.reference} if record.reference else {}
        bundle, registry, kept = imported.bundle, Registry.open(load_settings()), path.absolute().parent / KEPT
        # Of a training whose registry did not answer: its run comes first, so that the version knows its history.
        run_id, told = deliver(registry, kept) if path.is_dir() and has_kept(kept) else (None, {})
        chosen = name or told.get("name") or bundle.spec.name
        metrics = told.get("metrics") or record.metrics
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
    """Give a bundle together with what the registry knows of it; a folder says itself what it knows."""
    if version is None:
        yield bundle
        return
    from cytoray_services.exchange import leaving, record_of_version
    from cytoray_services.registry import Registry

    # Packages and graphs are for everyone; the folders that a recipe names are not.
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
            f"--format {form.value} needs {', '.join(missing)}, which are not installed",
            hint="pip install 'cytoray[exchange]'",
        )
