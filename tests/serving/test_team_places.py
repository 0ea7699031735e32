"""What belongs to a team is for no other team: folders and prefixes by whole parts, at any depth and by any link."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zarr

from buckets import BUCKET, bucket_store, client
from cytoray_analysis.errors import CytorayError, ForbiddenError
from cytoray_analysis.images import Limits
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.locate import locate
from cytoray_services.storage.location import StorageLocation
from cytoray_services.tokens.access import Caller
from cytoray_serving.gateway.teams import TeamConfig, allowed_for
from cytoray_serving.service.config import ServiceConfig
from serving_samples import GOOD

LAB, CLINIC, STRANGER = (
    Caller(name, ("predict",), team) for name, team in (("a", "lab"), ("b", "clinic"), ("c", None))
)
BOTH = Caller("d", ("submit:lab", "submit:clinic"))
CHIEF = Caller("e", ("administer",))


def may(caller: Caller, uri: str, everybody: Allowed, teams: dict[str, TeamConfig]) -> bool:
    try:
        locate(uri, allowed_for(caller, everybody, teams))
    except ForbiddenError:
        return False
    return True


@pytest.mark.parametrize(
    ("uri", "lab", "clinic", "stranger"),
    [
        ("s3://shared/a.tif", True, True, True),
        ("s3://lab/a/x.tif", True, False, False),
        ("s3://lab/a", True, False, False),
        ("s3://lab/ab/x.tif", False, False, False),
        ("s3://lab", False, False, False),
        ("s3://shared/clinic/x.tif", False, True, False),
        ("s3://shared/clinical/x.tif", True, True, True),
        ("s3://shared/clinic/lab/x.tif", True, False, False),
        ("s3://shared/clinic/labs/x.tif", False, True, False),
        ("s3://lab/a/../b", False, False, False),
    ],
)
def test_a_prefix_belongs_to_one_team_by_whole_parts(uri: str, lab: bool, clinic: bool, stranger: bool) -> None:
    everybody = Allowed(buckets=("shared",))
    teams = {
        "lab": TeamConfig(buckets=("s3://lab/a", "shared/clinic/lab/")),
        "clinic": TeamConfig(buckets=("s3://shared/clinic",)),
    }
    assert [may(one, uri, everybody, teams) for one in (LAB, CLINIC, STRANGER)] == [lab, clinic, stranger]
    assert may(BOTH, uri, everybody, teams) is (lab or clinic)
    assert may(CHIEF, uri, everybody, teams) is (lab or clinic)


def test_a_folder_belongs_to_one_team_by_whole_names_and_links_resolved(tmp_path: Path) -> None:
    for name in ("all/clinic", "all/clinical", "lab"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.tif").write_bytes(GOOD)
    (tmp_path / "all/link").symlink_to(tmp_path / "all/clinic")
    (tmp_path / "all/a.tif").symlink_to(tmp_path / "all/clinic/a.tif")
    everybody = Allowed(roots=(tmp_path / "all",))
    teams = {"lab": TeamConfig(roots=(tmp_path / "lab",)), "clinic": TeamConfig(roots=(tmp_path / "all/link",))}
    for name, lab, clinic in (
        ("all/clinical/a.tif", True, True),
        ("all/clinic/a.tif", False, True),
        ("all/link/a.tif", False, True),
        ("all/a.tif", False, True),
        ("lab/a.tif", True, False),
    ):
        uri = (tmp_path / name).as_uri()
        assert [may(one, uri, everybody, teams) for one in (LAB, CLINIC)] == [lab, clinic]
        assert may(STRANGER, uri, everybody, teams) is (lab and clinic)
        assert may(CHIEF, uri, everybody, teams)


def test_what_is_used_as_a_whole_holds_nothing_of_another_team(tmp_path: Path) -> None:
    (tmp_path / "all/clinic").mkdir(parents=True)
    (tmp_path / "all/clinic/a.tif").write_bytes(GOOD)
    (tmp_path / "all/movie").mkdir()
    (tmp_path / "all/movie/frames").symlink_to(tmp_path / "all")
    everybody = Allowed(roots=(tmp_path / "all",), buckets=("shared",))
    teams = {"clinic": TeamConfig(roots=(tmp_path / "all/clinic",), buckets=("shared/x/clinic",))}
    allowed = allowed_for(STRANGER, everybody, teams)
    (tmp_path / "all/sub").mkdir()
    root = locate((tmp_path / "all").as_uri(), allowed)
    movie = locate((tmp_path / "all/movie").as_uri(), allowed)
    for folder in (root, movie):
        with pytest.raises(ForbiddenError), folder.local():
            pass
    with pytest.raises(ForbiddenError):
        root.joined("clinic").joined("a.tif").open_image(Limits())
    bucket = locate("s3://shared/x", allowed)
    for use in (bucket.delete, lambda: bucket.zarr_store(writing=False), lambda: bucket.local().__enter__()):
        with pytest.raises(ForbiddenError, match="without prefixes of other teams"):
            use()
    assert (tmp_path / "all/clinic/a.tif").exists()


def test_the_configuration_names_teams_and_old_ones_stay_valid() -> None:
    config = ServiceConfig.model_validate(
        {"allowed": {"buckets": ["shared"]}, "teams": {"lab": {"buckets": ["s3://lab/a"], "jobs": 4, "waiting": 16}}}
    )
    assert config.teams["lab"].jobs == 4
    assert may(LAB, "s3://lab/a/x", config.allowed, dict(config.teams))
    assert ServiceConfig().teams == {}
    with pytest.raises(ValueError, match="teams"):
        ServiceConfig.model_validate({"teams": {"No Team": {}}})


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Run an S3 store."""
    with bucket_store() as address:
        yield address


def keys() -> dict[str, bytes]:
    """Return all objects of the bucket."""
    store = client()
    found = store.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    return {one["Key"]: store.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read() for one in found}


@pytest.fixture
def clinic(s3: str) -> Allowed:
    """Give what strangers may use of a bucket in which a team has a prefix, with objects in it."""
    for key in keys():
        client().delete_object(Bucket=BUCKET, Key=key)
    for key in ("clinic/secret.tif", "clinic/x.zarr/0/0", "mine/x.zarr/0/0"):
        client().put_object(Bucket=BUCKET, Key=key, Body=GOOD)
    everybody = Allowed(buckets=(BUCKET,), s3_endpoint=s3)
    return allowed_for(STRANGER, everybody, {"clinic": TeamConfig(buckets=(f"{BUCKET}/clinic",))})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["clinic?versionId=1", "clinic?versionId=", "clinic?versionId=1/a.tif", "clinic/secret.tif?versionId=null",
     "clinic/x?versionId=1?versionId=2", "mine/a.tif?versionId=1"],
)  # fmt: skip
def test_no_version_of_an_object_is_named_because_s3fs_cuts_it_off(clinic: Allowed, name: str) -> None:
    root = locate(f"s3://{BUCKET}/mine", clinic)
    with pytest.raises(CytorayError, match="versionId"):
        locate(f"s3://{BUCKET}/{name}", clinic)
    with pytest.raises(CytorayError, match="versionId"):
        root.joined(f"a/{name}").exists()
    assert "clinic/secret.tif" in keys()


WRITTEN = [
    "clinic", "clinic/", "clinic//secret.tif", "/clinic", "./clinic", "mine/../clinic", "clinic?versionId=1",
    "clinic?versionId=1/secret.tif", "*", "*/secret.tif", "?linic", "?linic/secret.tif", "[c]linic", "**", "clini*",
    "clinic#", "clinic?x=1", "%63linic", "clinic%2Fsecret.tif", "Clinic", "~/clinic", "s3::clinic",
    "s3://shared/clinic", "mine::s3://images/clinic", "\u0441linic", "clinic\u0000", "clinic\\secret.tif", " clinic",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITTEN)
def test_no_way_of_writing_a_key_reaches_those_of_a_team(clinic: Allowed, name: str) -> None:
    before = keys()

    def written(one: StorageLocation) -> None:
        zarr.create_array(one.zarr_store(writing=True), name="0", shape=4, dtype="u1", overwrite=True)

    def used(uri: str) -> Iterator[Any]:
        one = locate(uri, clinic)
        yield one.joined("secret.tif").exists
        yield one.exists
        yield one.is_folder
        yield one.read_bytes
        yield one.children
        yield lambda: one.local().__enter__()
        yield lambda: zarr.open_group(one.zarr_store(writing=False), mode="r")
        yield lambda: written(one.joined("x.zarr"))
        yield one.joined(".job-1").delete
        yield one.delete

    for uri in (
        f"s3://{BUCKET}/{name}",
        f"S3://{BUCKET}/{name}",
        f"s3a://{BUCKET}/{name}",
        f"s3://s3::{BUCKET}/{name}",
    ):
        try:
            for use in used(uri):
                try:
                    answer = use()
                except (CytorayError, FileNotFoundError):
                    continue
                assert not answer, f"{use} of {uri} found {answer!r}"
        except CytorayError:
            continue
    after = keys()
    assert {key: body for key, body in after.items() if key in before} == before


@pytest.mark.slow
def test_what_is_derived_from_a_place_is_checked_again(clinic: Allowed) -> None:
    bucket = locate(f"s3://{BUCKET}", clinic)
    assert [one.name for one in bucket.children()] == ["clinic", "mine"]
    for below in (bucket.joined("clinic"), bucket.joined("clinic/secret.tif"), *bucket.children()[:1]):
        for use in (below.read_bytes, below.exists, below.is_folder, below.children, below.delete):
            with pytest.raises(ForbiddenError):
                use()
        with pytest.raises(ForbiddenError):
            below.write_bytes(b"")
    assert "clinic/secret.tif" in keys()


@pytest.mark.slow
def test_an_answer_is_not_written_below_names_that_stand_for_others(clinic: Allowed) -> None:
    answer = locate(f"s3://{BUCKET}/mine/a.zarr", clinic)
    zarr.create_array(answer.zarr_store(writing=True), name="0", shape=4, dtype="u1")
    for name in ("*", "min?", "[m]ine", "mine/*"):
        with pytest.raises(CytorayError, match=r"\*"):
            locate(f"s3://{BUCKET}/{name}/x.zarr", clinic).zarr_store(writing=True)
