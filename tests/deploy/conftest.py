from __future__ import annotations

import pytest
import yaml

from cytoray_services.jobs.platform import Platform
from deploy.charts import Manifest, named
from deploy.training_objects import chart


@pytest.fixture(scope="module")
def policies() -> list[Manifest]:
    """The chart with a training namespace, and its policies."""
    return chart()


@pytest.fixture(scope="module")
def platform(policies: list[Manifest]) -> Platform:
    """What that chart says of training jobs."""
    return Platform.model_validate(
        yaml.safe_load(named(policies, "ConfigMap/cytoray-platform")["data"]["platform.yaml"])
    )
