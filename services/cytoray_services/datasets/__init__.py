"""Data sets: opened, checked, hashed, made."""

from cytoray_services.datasets.check import Finding, check_dataset, check_folder
from cytoray_services.datasets.content import file_digest, hash_dataset
from cytoray_services.datasets.dataset import ALL, Box, Dataset, Item, join_datasets
from cytoray_services.datasets.fetching import kept, passing, remove_abandoned
from cytoray_services.datasets.labelled import Labelled, arguments_read, read_labelled, read_parts, task_arguments
from cytoray_services.datasets.manifest import open_dataset
from cytoray_services.datasets.places import absolute_place, read_place
from cytoray_services.datasets.source import DataSource
from cytoray_services.datasets.synthetic import make_segmentation

__all__ = [
    "ALL",
    "Box",
    "DataSource",
    "Dataset",
    "Finding",
    "Item",
    "Labelled",
    "absolute_place",
    "arguments_read",
    "check_dataset",
    "check_folder",
    "file_digest",
    "hash_dataset",
    "join_datasets",
    "kept",
    "make_segmentation",
    "open_dataset",
    "passing",
    "read_labelled",
    "read_parts",
    "read_place",
    "remove_abandoned",
    "task_arguments",
]
