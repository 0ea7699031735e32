"""Data sets named by URI: the same data set, whether it lies in a folder, in a bucket or on a volume claim."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from buckets import BUCKET, bucket_store, client, copy_to_bucket
from cytoray_analysis.errors import CytorayError, DatasetError, ForbiddenError, MissingFileError, PlatformError
from cytoray_analysis.images import image_from_array, write_image, write_labels
from cytoray_services.commands.root import main
from cytoray_services.datasets import (
    Dataset,
    DataSource,
    check_dataset,
    hash_dataset,
    make_segmentation,
    open_dataset,
    passing,
    path_or_uri,
    read_labelled,
    task_arguments,
)
from cytoray_services.datasets.remote import data_uris
from cytoray_services.datasets.synthetic.classification import make_classification
from cytoray_services.datasets.synthetic.label_free import make_label_free
from cytoray_services.datasets.synthetic.tracking import make_tracking
from cytoray_services.in_use import users
from cytoray_services.promotion.seen_data import image_digests

pytestmark = pytest.mark.slow


def without_manifest(folder: Path) -> Dataset:
    root = make_segmentation(folder, images=6, size=64).root
    (root / "manifest.csv").unlink()
    return open_dataset(root)


def ome_zarr(folder: Path) -> Dataset:
    (folder / "masks").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "abcd":
        labels = np.zeros((48, 48), np.int32)
        labels[5:20, 5:20] = 1
        pixels = image_from_array(rng.integers(0, 200, (48, 48)).astype(np.uint8), "YX")
        write_image(folder / "images" / f"{name}.ome.zarr", pixels)
        write_labels(folder / "masks" / f"{name}.tif", labels)
    return open_dataset(folder)


def folders_of_splits(folder: Path) -> Dataset:
    made = make_segmentation(folder / "made", images=4, size=64)
    for item in made.items:
        for path, part in ((item.image, "images"), (item.truth, "masks")):
            assert path is not None
            (folder / "set" / item.split / part).mkdir(parents=True, exist_ok=True)
            path.rename(folder / "set" / item.split / part / path.name)
    return open_dataset(folder / "set")


def accents_written_otherwise(folder: Path) -> Dataset:
    made = make_segmentation(folder, images=2, size=64)
    text = (folder / "manifest.csv").read_text(encoding="utf-8")
    for place in ("images", "masks"):
        (made.root / place / "0000.tif").rename(made.root / place / unicodedata.normalize("NFD", "é.tif"))
    (folder / "manifest.csv").write_text(text.replace("0000.tif", "é.tif"), encoding="utf-8")
    return open_dataset(folder)


KINDS: dict[str, Callable[[Path], Dataset]] = {
    "labels in folders of splits": folders_of_splits,
    "accents written otherwise": accents_written_otherwise,
    "labels": lambda folder: make_segmentation(folder, images=4, size=64),
    "labels, split drawn by content": without_manifest,
    "labels, images are folders": ome_zarr,
    "boxes": lambda folder: make_classification(folder, images=4, size=128),
    "folders of classes": lambda folder: make_classification(folder, images=4, size=128, layout="folders"),
    "stains": lambda folder: make_label_free(folder, images=4, size=96),
    "movies": lambda folder: make_tracking(folder, movies=2, frames=4, size=64),
}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with bucket_store() as address:
        yield address


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CYTORAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CYTORAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def pair(tmp_path: Path, store: str) -> tuple[Dataset, Dataset]:
    """Return four images in a folder, and the same in a bucket."""
    local = make_segmentation(tmp_path / "cells", images=4, size=64)
    return local, open_dataset(copy_to_bucket(local.root, tmp_path.name))


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_in_a_bucket_is_the_same_as_in_a_folder(kind: str, tmp_path: Path, store: str, cache: Path) -> None:
    local = KINDS[kind](tmp_path / "data")
    remote = open_dataset(copy_to_bucket(local.root, tmp_path.name))
    assert hash_dataset(remote) == hash_dataset(local)
    assert [item.split for item in remote.items] == [item.split for item in local.items]
    assert check_dataset(remote) == check_dataset(local)
    assert task_arguments(remote) == task_arguments(local)
    assert list(image_digests(remote)) == list(image_digests(local))
    # So far everything was looked at, and nothing kept.
    assert not (cache / "files").exists()
    arguments = task_arguments(local)
    for there, here in zip(remote.images, local.images, strict=True):
        one, other = read_labelled(remote, there, arguments), read_labelled(local, here, arguments)
        np.testing.assert_array_equal(one.image.read(), other.image.read())
        if isinstance(one.truth, np.ndarray):
            np.testing.assert_array_equal(one.truth, other.truth)
        else:
            assert len(one.truth.outlines) == len(other.truth.outlines) > 0
            np.testing.assert_array_equal(one.truth.track, other.truth.track)


def test_only_what_is_opened_is_fetched_and_only_once(
    pair: tuple[Dataset, Dataset], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, remote = pair
    first = remote.images[0]
    read_labelled(remote, first, {}).image.read()
    (folder,) = (path for path in (cache / "files").iterdir() if path.is_dir())
    assert files_below(folder) == [first[0].image.name] * 2
    assert users(folder) is not None  # so that no process removes it meanwhile
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    read_labelled(remote, first, {}).image.read()


def test_what_passes_leaves_nothing(pair: tuple[Dataset, Dataset], cache: Path) -> None:
    _, remote = pair
    with passing(remote, remote.items[:1]) as (here, (item,)):
        assert item.image.is_file()
        assert here.name_of(item.image) == remote.name_of(remote.items[0].image)
    assert files_below(cache) == []


def test_a_check_reads_the_files_once_and_again_when_it_asks_for_something_else(
    pair: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    local, remote = pair
    findings = check_dataset(remote, channels=3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert check_dataset(remote, channels=3) == findings == check_dataset(local, channels=3)
    with pytest.raises(PlatformError, match="does not answer"):
        check_dataset(remote, channels=1)


def test_a_hash_is_computed_once(pair: tuple[Dataset, Dataset], monkeypatch: pytest.MonkeyPatch) -> None:
    local, remote = pair
    digest = hash_dataset(remote)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert hash_dataset(remote) == digest == hash_dataset(local)


def test_a_changed_file_changes_the_hash_and_is_not_mixed_with_the_old(pair: tuple[Dataset, Dataset]) -> None:
    local, remote = pair
    before = hash_dataset(remote)
    uri = remote.remotes[0].uri
    key = f"{uri.removeprefix(f's3://{BUCKET}/')}/images/{remote.items[1].image.name}"
    client().put_object(Bucket=BUCKET, Key=key, Body=local.items[0].image.read_bytes())
    with pytest.raises(DatasetError, match="was changed"):
        read_labelled(remote, remote.images[1], {})
    again = open_dataset(uri)
    assert hash_dataset(again) != before
    np.testing.assert_array_equal(
        read_labelled(again, again.images[1], {}).image.read(), read_labelled(local, local.images[0], {}).image.read()
    )


def test_several_folders_are_one_data_set_wherever_they_lie(tmp_path: Path, store: str) -> None:
    folders = [make_segmentation(tmp_path / name, images=3, size=64, seed=at).root for at, name in enumerate("ab")]
    uris = [copy_to_bucket(folder, f"{tmp_path.name}/{folder.name}") for folder in folders]
    local = DataSource(tuple(folders), "labels").open()
    remote = DataSource(tuple(uris), "labels").open()
    mixed = DataSource((folders[0], uris[1]), "labels").open()
    assert hash_dataset(remote) == hash_dataset(local)
    assert DataSource.from_record(json.loads(json.dumps(DataSource((uris[0],), "labels").to_record()))).roots == (
        uris[0],
    )
    for dataset in (remote, mixed):
        for there, here in zip(dataset.images, local.images, strict=True):
            one, other = read_labelled(dataset, there, {}), read_labelled(local, here, {})
            np.testing.assert_array_equal(one.image.read(), other.image.read())
        assert check_dataset(dataset) == check_dataset(local)


def test_a_missing_file_is_found_by_the_check(pair: tuple[Dataset, Dataset]) -> None:
    _, remote = pair
    uri = remote.remotes[0].uri
    name = remote.items[0].image.name
    client().delete_object(Bucket=BUCKET, Key=f"{uri.removeprefix(f's3://{BUCKET}/')}/images/{name}")
    findings = check_dataset(open_dataset(uri))
    assert [(finding.code, finding.file) for finding in findings] == [("missing-file", f"images/{name}")]
    with pytest.raises(MissingFileError, match=name):
        hash_dataset(open_dataset(uri))


def missing_bucket(uri: str, patch: pytest.MonkeyPatch) -> str:
    return "s3://no-such-bucket/cells"


def nothing_there(uri: str, patch: pytest.MonkeyPatch) -> str:
    return f"{uri}/deeper"


def no_store(uri: str, patch: pytest.MonkeyPatch) -> str:
    patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    return uri


def no_credentials(uri: str, patch: pytest.MonkeyPatch) -> str:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.delenv(name)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return uri


def no_client(uri: str, patch: pytest.MonkeyPatch) -> str:
    for name in ("s3fs", "s3fs.core"):  # one that is loaded is imported without its package
        patch.setitem(sys.modules, name, None)
    return uri


@pytest.mark.parametrize(
    ("spoil", "kind", "message", "hint"),
    [
        (
            missing_bucket,
            MissingFileError,
            "expected the bucket 'no-such-bucket', it does not exist",
            "AWS_ENDPOINT_URL",
        ),
        (nothing_there, MissingFileError, "expected files below s3://.*/deeper, there are none", "prefix"),
        (no_store, PlatformError, "does not answer", "network"),
        (no_credentials, ForbiddenError, "expected credentials for s3://.*, there are none", "AWS_ACCESS_KEY_ID"),
        (no_client, PlatformError, "need s3fs, which is not installed", "cytoray[s3]"),
    ],
)
def test_what_cannot_be_opened_is_reported_in_one_sentence(
    spoil: Callable[[str, pytest.MonkeyPatch], str],
    kind: type[CytorayError],
    message: str,
    hint: str,
    pair: tuple[Dataset, Dataset],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = spoil(pair[1].remotes[0].uri, monkeypatch)
    with pytest.raises(kind, match=message) as raised:
        open_dataset(uri)
    assert hint in (raised.value.hint or "")
    assert "\n" not in raised.value.message


def test_no_rights_are_reported(pair: tuple[Dataset, Dataset], store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    # From now on moto checks credentials, and none has any right.
    requests.post(f"{store}/moto-api/reset-auth", data="0", timeout=5)
    try:
        with pytest.raises(ForbiddenError, match="do not allow") as raised:
            open_dataset(pair[1].remotes[0].uri)
        assert "s3:ListBucket" in (raised.value.hint or "")
    finally:
        requests.post(f"{store}/moto-api/reset-auth", data="inf", timeout=5)


def test_a_volume_claim_is_a_folder_where_it_is_mounted(
    pair: tuple[Dataset, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, _ = pair
    with pytest.raises(MissingFileError, match="not mounted here") as raised:
        open_dataset("pvc://cells/2026/plates")
    assert "--on kubernetes" in (raised.value.hint or "")
    (tmp_path / "data" / "cells" / "2026").mkdir(parents=True)
    (tmp_path / "data" / "cells" / "2026" / "plates").symlink_to(local.root)
    monkeypatch.setattr(data_uris, "CLAIMS", tmp_path / "data")
    assert hash_dataset(open_dataset("pvc://cells/2026/plates")) == hash_dataset(local)


def test_a_file_uri_is_its_path(pair: tuple[Dataset, Dataset]) -> None:
    local, _ = pair
    assert open_dataset(local.root.as_uri()) == local


@pytest.mark.parametrize(
    "text", ["ftp://host/x", "s3://", "s3:///key", "s3://b/x", "s3://bucket/../x", "pvc://UPPER/x", "file://host/x"]
)
def test_a_uri_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="expected"):
        path_or_uri(text)


@given(some.text(max_size=40))
def test_whatever_a_place_is_called_it_is_read_or_refused(text: str) -> None:
    for uri in (f"s3://bucket/{text}", f"pvc://claim/{text}", f"file:///{text}", text):
        try:
            place = path_or_uri(uri)
        except DatasetError:
            continue
        assert isinstance(place, Path) or path_or_uri(place) == place


def test_the_commands_take_uris(pair: tuple[Dataset, Dataset], capsys: pytest.CaptureFixture[str]) -> None:
    local, remote = pair
    uri = remote.remotes[0].uri

    def run(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        return ended.value.code, *capsys.readouterr()

    assert json.loads(run("data", "check", uri, "--json")[1])["errors"] == 0
    assert run("data", "hash", uri)[:2] == (0, f"{hash_dataset(local)}\n")
    status, _, said = run("data", "hash", "s3://no-such-bucket/x")
    assert status == 2
    assert "expected the bucket 'no-such-bucket', it does not exist" in said
