"""Data sets: opened, checked, hashed, made."""

from cytoray_services.datasets.check import Finding, check_dataset, check_folder
from cytoray_services.datasets.content import file_digest, hash_dataset
from cytoray_services.datasets.manifest import Dataset, Item, open_dataset
from cytoray_services.datasets.synthetic import make_segmentation

__all__ = [
    "Dataset",
    "Finding",
    "Item",
    "check_dataset",
    "check_folder",
    "file_digest",
    "hash_dataset",
    "make_segmentation",
    "open_dataset",
]
