"""Data sets: open, check, hash and make them."""

from cytoray_services.content_hash import file_digest
from cytoray_services.datasets.check import Finding, check_dataset
from cytoray_services.datasets.content import hash_dataset
from cytoray_services.datasets.dataset import ALL, Box, Dataset, Item, Labelled, join_datasets
from cytoray_services.datasets.labelled import arguments_read, read_labelled, read_parts, task_arguments
from cytoray_services.datasets.manifest import open_dataset
from cytoray_services.datasets.remote.data_uris import absolute_or_uri, path_or_uri
from cytoray_services.datasets.remote.fetching import kept, passing, remove_abandoned
from cytoray_services.datasets.source import DataSource
from cytoray_services.datasets.synthetic.segmentation import make_segmentation

__all__ = [
    "ALL",
    "Box",
    "DataSource",
    "Dataset",
    "Finding",
    "Item",
    "Labelled",
    "absolute_or_uri",
    "arguments_read",
    "check_dataset",
    "file_digest",
    "hash_dataset",
    "join_datasets",
    "kept",
    "make_segmentation",
    "open_dataset",
    "passing",
    "path_or_uri",
    "read_labelled",
    "read_parts",
    "remove_abandoned",
    "task_arguments",
]
