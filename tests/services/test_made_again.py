"""What a program keeps of a version means that very one, although MLflow gives its number to another one later."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import ModelNotFoundError, RequestError
from cytoray_analysis.networks import build_network
from cytoray_services.free_ports import free_port
from cytoray_services.registry import Registry, load_bundle, parse_reference
from cytoray_services.settings import Settings
from registry_stores import local

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 4, "widths": [4, 8]})


@pytest.fixture
def registry(registry_home: Path) -> Registry:
    return Registry.open(local(registry_home))


def bundle(folder: Path) -> Path:
    spec = BundleSpec(name="cells", task=TaskChoice(), input=ModelInput(), network=NETWORK)
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    return write_bundle(folder, spec, weights, test_input=np.zeros((1, 16, 16), np.float32), card="# cells\n").folder


def delete(registry: Registry) -> None:
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=registry.settings.tracking_uri).delete_registered_model("cells")


@pytest.mark.slow
def test_an_exact_reference_never_means_the_version_that_has_its_number_later(
    registry: Registry, tmp_path: Path
) -> None:
    old = registry.register(bundle(tmp_path / "old"), "cells")
    assert registry.resolve(old.exact_reference) == registry.resolve("cells/1")
    delete(registry)
    new = registry.register(bundle(tmp_path / "new"), "cells")
    assert (new.version, old.version) == ("1", "1")
    assert new.digest != old.digest
    with pytest.raises(ModelNotFoundError, match="deleted and created again with the same name"):
        registry.resolve(old.exact_reference)
    assert registry.resolve(new.exact_reference).digest == new.digest


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["cells", "cells@candidate", "cells/1"])
def test_what_was_known_of_the_model_before_is_not_taken_while_mlflow_answers(
    registry: Registry, tmp_path: Path, reference: str
) -> None:
    registry.register(bundle(tmp_path / "old"), "cells")
    before = load_bundle(reference, registry.settings, known=True)[0].digest
    delete(registry)
    new = registry.register(bundle(tmp_path / "new"), "cells")
    assert before != new.digest
    for _ in range(2):
        assert load_bundle(reference, registry.settings, known=True)[0].digest == new.digest
    away = Settings(home=registry.settings.home, tracking_uri=f"http://127.0.0.1:{free_port()}")
    assert load_bundle(reference, away, known=True)[0].digest == new.digest


@pytest.mark.slow
def test_the_record_of_a_model_made_again_has_the_digests_of_today_only(registry: Registry, tmp_path: Path) -> None:
    registry.register(bundle(tmp_path / "old"), "cells")
    registry.register(bundle(tmp_path / "older"), "cells")
    assert len(registry.record("cells").digests) == 2
    delete(registry)
    new = registry.register(bundle(tmp_path / "new"), "cells")
    assert registry.record("cells").digests == {"1": new.digest}


@pytest.mark.parametrize(
    "text", ["cells#" + "0" * 64, "cells@champion#" + "0" * 64, "cells/1#0", "cells/1#", "cells/1#x"]
)
def test_a_digest_belongs_to_a_version_and_is_whole(text: str) -> None:
    with pytest.raises(RequestError, match="expected a reference to a model"):
        parse_reference(text)
