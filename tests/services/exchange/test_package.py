"""A Model Zoo package of ours is valid, says what it holds, and comes back as the very same bundle."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from scipy.ndimage import gaussian_filter

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import BundleError, MissingFileError, RequestError
from cytoray_analysis.images import image_from_array
from cytoray_analysis.predictor import Predictor
from cytoray_services.exchange import Credits, credits_of, export_bundle, export_package, opened

CREDITS = Credits(("Ada Lovelace",), "CC-BY-4.0", ("10.1038/s41592-018-0261-2",))


@pytest.mark.slow
def test_every_kind_is_valid_and_comes_back_the_same(
    kind: str, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    from bioimageio.spec import InvalidDescr, load_model_description

    bundle = bundle_of(kind)
    export_package(bundle, tmp_path / "model.zip", CREDITS)
    shutil.rmtree(bundle.folder)  # whatever the package needs, it has inside

    found = load_model_description(tmp_path / "model.zip", perform_io_checks=True)
    assert not isinstance(found, InvalidDescr)  # type: ignore[unreachable] # mypy thinks that no class can be both
    assert found.license == "CC-BY-4.0"
    assert [author.name for author in found.authors] == ["Ada Lovelace"]
    with opened(tmp_path / "model.zip") as imported:
        assert imported.origin == "cytoray package"
        assert imported.bundle.digest == bundle.digest
        assert imported.bundle.self_test() == 0.0


def test_what_comes_back_answers_the_same(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = bundle_of("labelfree")
    texture = gaussian_filter(np.random.default_rng(2).random((1, 50, 61)), (0, 2, 2))
    image = image_from_array((80 + 4_000 * texture).astype(np.uint16), "CYX")
    expected = Predictor(bundle, device="cpu").predict(image).answer
    export_package(bundle, tmp_path / "folder", CREDITS)
    with opened(tmp_path / "folder") as imported:
        assert np.array_equal(Predictor(imported.bundle, device="cpu").predict(image).answer, expected)


@pytest.mark.slow
def test_the_description_alone_gives_the_test_output(
    kind: str, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    """Follow the description with NumPy and ONNX Runtime only, as a program that has never heard of Cytoray would."""
    export_package(bundle_of(kind), tmp_path / "package", CREDITS)
    document = yaml.safe_load((tmp_path / "package" / "bioimageio.yaml").read_text())
    given, answered = document["inputs"][0], document["outputs"][0]
    pixels = np.load(tmp_path / "package" / given["test_tensor"]["source"])
    space = tuple(place for place, axis in enumerate(given["axes"]) if axis["type"] == "space")
    for step in given["preprocessing"]:
        pixels = follow(step, pixels, space)
    session = onnxruntime.InferenceSession(tmp_path / "package" / document["weights"]["onnx"]["source"])
    (answer,) = session.run(None, {session.get_inputs()[0].name: pixels.astype(np.float32)})
    for step in answered.get("postprocessing", []):
        answer = follow(step, answer, tuple(range(2, answer.ndim)))
    expected = np.load(tmp_path / "package" / answered["test_tensor"]["source"])
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-3 * np.ptp(expected))


def follow(step: dict[str, Any], pixels: np.ndarray, space: tuple[int, ...]) -> np.ndarray:
    kwargs, column = step["kwargs"], (1, -1, *[1] * (pixels.ndim - 2))
    if step["id"] == "scale_range":
        low, high = (
            np.percentile(pixels, kwargs[key], axis=space, keepdims=True)
            for key in ("min_percentile", "max_percentile")
        )
        return np.asarray((pixels - low) / (high - low + float(kwargs["eps"])))
    if step["id"] == "zero_mean_unit_variance":
        return np.asarray((pixels - pixels.mean(space, keepdims=True)) / (pixels.std(space, keepdims=True) + 1e-6))
    if step["id"] == "scale_linear":
        return pixels * np.reshape(kwargs["gain"], column) + np.reshape(kwargs["offset"], column)
    if step["id"] == "softmax":
        return np.asarray(np.exp(pixels) / np.exp(pixels).sum(1, keepdims=True))
    assert step["id"] == "ensure_dtype"
    return pixels


def test_the_package_says_what_it_cannot(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    export_package(bundle_of("unet"), tmp_path / "package", CREDITS)
    document = yaml.safe_load((tmp_path / "package" / "bioimageio.yaml").read_text())
    text = (tmp_path / "package" / "README.md").read_text()
    assert "What this description cannot express" in text
    assert "not labels" in text
    axis = document["inputs"][0]["axes"][-1]
    assert (axis["unit"], axis["scale"], axis["size"]["step"]) == ("micrometer", 0.5, 4)
    assert not any("package/" in line for line in yaml.safe_dump(document).splitlines())


def test_without_authors_or_licence_it_is_said_how_to_give_them(bundle_of: Callable[[str], Bundle]) -> None:
    spec = bundle_of("unet").spec
    with pytest.raises(RequestError, match="author") as told:
        credits_of(spec)
    assert told.value.field == "--author"
    with pytest.raises(RequestError, match="licence"):
        credits_of(spec, authors=["Ada Lovelace"])
    known = spec.model_copy(update={"provenance": {"authors": ["Ada Lovelace"], "licence": "MIT"}})
    assert credits_of(known) == Credits(("Ada Lovelace",), "MIT")


def test_a_licence_that_is_none_is_refused_and_nothing_is_left(
    bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="license"):
        export_package(bundle_of("unet"), tmp_path / "out", Credits(("Ada Lovelace",), "free beer"))
    assert not (tmp_path / "out").exists()


def test_a_bundle_archive_is_the_same_every_time_and_comes_back(
    bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("unet")
    first = export_bundle(bundle, tmp_path / "first.zip").read_bytes()
    (bundle.folder / "README.md").touch()
    assert export_bundle(bundle, tmp_path / "second.zip").read_bytes() == first
    with opened(tmp_path / "first.zip") as imported:
        assert (imported.origin, imported.bundle.digest) == ("bundle", bundle.digest)


def test_an_archive_with_the_bundle_one_folder_down_is_understood(
    bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    bundle = bundle_of("unet")
    shutil.make_archive(str(tmp_path / "nested"), "zip", bundle.folder.parent, bundle.folder.name)
    with opened(tmp_path / "nested.zip") as imported:
        assert imported.bundle.digest == bundle.digest


def test_a_package_whose_bundle_was_exchanged_is_refused(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    export_package(bundle_of("unet"), tmp_path / "package", CREDITS)
    export_bundle(bundle_of("labelfree"), tmp_path / "package" / "cytoray_bundle.zip")
    with pytest.raises(BundleError, match="digest"), opened(tmp_path / "package"):
        pass


def test_a_planted_file_in_a_bundle_archive_is_refused(bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    archive = export_bundle(bundle_of("unet"), tmp_path / "bundle.zip")
    with zipfile.ZipFile(archive, "a") as opened_archive:
        opened_archive.writestr("weights.pkl", b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BundleError, match=r"weights\.pkl"), opened(archive):
        pass


def test_nothing_and_an_address_are_distinguished_from_a_model(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError), opened(tmp_path / "nowhere.zip"):
        pass
    with pytest.raises(MissingFileError) as told, opened("https://bioimage.io/model.zip"):
        pass
    assert "download" in str(told.value.hint)
    (tmp_path / "empty").mkdir()
    with (
        pytest.raises(BundleError, match=r"contains neither bundle\.yaml nor bioimageio\.yaml"),
        opened(tmp_path / "empty"),
    ):
        pass
