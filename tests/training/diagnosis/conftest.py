"""Data sets for the tests of diagnosis, and trainings in which nothing was planted."""

from __future__ import annotations

import pytest
import torch

from cytoray_services.datasets import Dataset, make_segmentation
from cytoray_services.datasets.synthetic.classification import make_classification
from cytoray_training.diagnosis.diagnose import Diagnosis
from planted_faults import CLASSES, plan_for, trained


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fields(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Thirty-two fields of nuclei, 64 × 64; a quarter of them is ``val``."""
    return make_segmentation(tmp_path_factory.mktemp("fields"), images=32, size=64, seed=5)


@pytest.fixture(scope="session")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Cells of two classes in fields with boxes; a quarter of the fields is ``val``."""
    return make_classification(tmp_path_factory.mktemp("crops"), images=24, size=160, seed=1, classes=2)


@pytest.fixture(scope="session")
def healthy_segmentation(fields: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    """Diagnosis of a training in which nothing was planted."""
    home = tmp_path_factory.mktemp("healthy-segmentation")
    return trained(plan_for(fields, home), home / "run")


@pytest.fixture(scope="session")
def healthy_classes(crops: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    """Diagnosis of a classifier in which nothing was planted."""
    home = tmp_path_factory.mktemp("healthy-classes")
    return trained(plan_for(crops, home, CLASSES), home / "run")
