"""Scenes of CZI files that have no names."""

from __future__ import annotations

from typing import Any

from cytoray_analysis.errors import UnreadableImageError


def name_scenes(reader: Any, label: str) -> None:
    """Let the reader of bioio-czi list every scene of a file.

    It finds scenes by their names in the metadata, so a file without such names, as written by pylibCZIrw, appears to
    contain only the first scene.

    Raises
    ------
    UnreadableImageError
        The file has more scenes than can be listed.
    """
    declared = reader.metadata.findtext("./Metadata/Information/Image/SizeS")
    count = int(declared) if declared and declared.isdecimal() else 1
    listed = len(reader.scenes)
    if count <= listed:
        return
    inner: Any = getattr(reader, "_implementation", None)
    if listed == 1 and inner is not None and hasattr(inner, "_scenes"):
        inner._scenes = tuple(f"Scene {number}" for number in range(count))
    if len(reader.scenes) != count:
        raise UnreadableImageError(
            f"{label} declares {count} scenes, but its reader lists {listed}",
            hint="export each scene as OME-TIFF",
        )
