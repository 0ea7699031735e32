"""Images: read lazily in any format, scaled, resampled and written back."""

from cytoray_analysis.images.axes import AXES
from cytoray_analysis.images.image import Image, image_from_array, require_finite
from cytoray_analysis.images.intensity import (
    IntensityScaling,
    IntensityStatistics,
    combine_intensities,
    fit_statistics,
    intensity_map,
    measure_intensities,
    measure_range,
    scale_intensities,
)
from cytoray_analysis.images.limits import Declared, Limits
from cytoray_analysis.images.reader import declared_size, list_series, read_image, read_levels, read_zarr
from cytoray_analysis.images.resample import resample_image, resample_labels
from cytoray_analysis.images.sampling import measure_image, sample_for_statistics
from cytoray_analysis.images.series import SeriesInfo
from cytoray_analysis.images.writer import create_zarr, read_labels, write_image, write_labels

__all__ = [
    "AXES",
    "Declared",
    "Image",
    "IntensityScaling",
    "IntensityStatistics",
    "Limits",
    "SeriesInfo",
    "combine_intensities",
    "create_zarr",
    "declared_size",
    "fit_statistics",
    "image_from_array",
    "intensity_map",
    "list_series",
    "measure_image",
    "measure_intensities",
    "measure_range",
    "read_image",
    "read_labels",
    "read_levels",
    "read_zarr",
    "require_finite",
    "resample_image",
    "resample_labels",
    "sample_for_statistics",
    "scale_intensities",
    "write_image",
    "write_labels",
]
