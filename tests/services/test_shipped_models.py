"""Models that come with the package: without a registry, and beside one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cytoray_analysis.errors import BundleError, ModelNotFoundError, RequestError
from cytoray_services.registry import Registry, load_bundle
from cytoray_services.registry.shipped import ShippedModels
from cytoray_services.settings import Settings
from serving_samples import write_small_bundle


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    write_small_bundle(tmp_path / "shipped" / "nuclei")
    return tmp_path / "shipped"


def settings_of(home: Path, shipped: Path) -> Settings:
    return Settings(home=home, tracking_uri=f"sqlite:///{home / 'mlflow.db'}", shipped=shipped)


@pytest.fixture
def registry(registry_home: Path, shipped: Path) -> Registry:
    return Registry.open(settings_of(registry_home, shipped))


def trained(registry: Registry, folder: Path, seed: int) -> str:
    return registry.register(write_small_bundle(folder / str(seed), seed=seed), "nuclei").version


@pytest.mark.parametrize("reference", ["nuclei", "nuclei@champion", "nuclei/0"])
def test_a_shipped_model_needs_no_registry_and_makes_none(tmp_path: Path, shipped: Path, reference: str) -> None:
    settings = settings_of(tmp_path / "home", shipped)
    bundle, version = load_bundle(reference, settings)
    assert bundle.folder == shipped / "nuclei"
    assert version is not None
    assert (version.reference, version.run_id, version.digest) == ("nuclei/0", None, bundle.digest)
    assert not settings.home.exists()


def test_it_is_listed_and_described_without_a_registry(tmp_path: Path, shipped: Path) -> None:
    registry = Registry.open(settings_of(tmp_path / "home", shipped))
    (model,) = registry.list()
    assert (model.name, model.aliases, [one.version for one in model.versions]) == ("nuclei", {"champion": "0"}, ["0"])
    assert registry.history("nuclei") == ()
    assert registry.record("nuclei").digests == {"0": model.versions[0].digest}
    with pytest.raises(RequestError, match="expected a previous version"):
        registry.rollback("nuclei")


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["nuclei@candidate", "nuclei/1", "other"])
def test_any_other_reference_needs_the_registry(registry: Registry, reference: str) -> None:
    with pytest.raises(ModelNotFoundError):
        registry.resolve(reference)


@pytest.mark.parametrize(
    ("name", "hint"), [("nuclie", "did you mean 'nuclei'"), ("axons", "Cytoray comes with nuclei")]
)
def test_a_name_that_there_is_not_suggests_what_comes_with_the_package(
    tmp_path: Path, shipped: Path, name: str, hint: str
) -> None:
    with pytest.raises(ModelNotFoundError) as raised:
        Registry.open(settings_of(tmp_path / "home", shipped)).resolve(name)
    assert hint in (raised.value.hint or "")


@pytest.mark.slow
def test_it_stays_the_champion_until_another_version_is_promoted(registry: Registry, tmp_path: Path) -> None:
    first = trained(registry, tmp_path, 1)
    assert registry.resolve("nuclei").version == registry.resolve("nuclei@champion").version == "0"
    assert registry.resolve("nuclei@candidate").version == first
    assert [one.version for one in registry.versions("nuclei")] == [first, "0"]
    registry.promote("nuclei", first, expected="0")
    assert registry.resolve("nuclei").version == registry.resolve("nuclei@champion").version == first
    assert registry.resolve("nuclei/0").aliases == ()
    (move, *_) = [one for one in registry.history("nuclei") if one.alias == "champion"]
    assert (move.before, move.after) == ("0", first)


@pytest.mark.slow
def test_a_rollback_leads_back_to_it(registry: Registry, tmp_path: Path) -> None:
    first, second = trained(registry, tmp_path, 1), trained(registry, tmp_path, 2)
    registry.promote("nuclei", first)
    registry.promote("nuclei", second)
    assert registry.rollback("nuclei").version == first
    back = registry.rollback("nuclei")
    assert (back.version, back.aliases) == ("0", ("champion",))
    assert registry.resolve("nuclei").version == "0"
    assert registry.record("nuclei").aliases["champion"] == "0"
    with pytest.raises(RequestError, match="expected a previous version"):
        registry.rollback("nuclei")


def test_a_promotion_that_expects_another_champion_is_refused(registry: Registry, tmp_path: Path) -> None:
    first = trained(registry, tmp_path, 1)
    with pytest.raises(RequestError, match="expected nuclei@champion to be no version, got version 0"):
        registry.promote("nuclei", first, expected=None)


def test_it_can_only_be_the_champion(registry: Registry, tmp_path: Path) -> None:
    trained(registry, tmp_path, 1)
    assert registry.promote("nuclei", "0").aliases == ("champion",)
    with pytest.raises(RequestError, match="expected the alias champion for nuclei/0"):
        registry.promote("nuclei", "0", "night")


def test_an_exact_reference_to_other_weights_is_refused(registry: Registry, tmp_path: Path) -> None:
    exact = registry.resolve("nuclei").exact_reference
    assert registry.resolve_or_known(exact)[0].version == "0"
    other = Registry.open(
        settings_of(registry.settings.home, write_small_bundle(tmp_path / "next" / "nuclei", seed=5).parent)
    )
    with pytest.raises(ModelNotFoundError, match="expected nuclei/0 with the digest"):
        other.resolve(exact)
    with pytest.raises(BundleError, match="expected the model nuclei/0 with the digest"):
        other.fetch(registry.resolve("nuclei"))


def test_without_a_folder_nothing_is_shipped() -> None:
    assert ShippedModels(None).names == ()
    assert "nuclei" not in ShippedModels(None)
