"""Images that are too large for memory: workers process their blocks, in any order and on any machine.

The result of a block is hidden next to the answer until all blocks are done: the object numbers in the block, and
their objects in the whole image. Then any worker can write blocks with the final numbers. A block is written in one
step and is the same from every worker, so nothing is lost or duplicated if a worker is lost. The metadata that make
the folder an OME-Zarr are written last.
"""

from __future__ import annotations

import io
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cytoray_analysis.inference.blocks import Blocks
from cytoray_analysis.numbering import all_objects, image_numbers
from cytoray_analysis.predictor import Predictor
from cytoray_services.storage.locate import locate
from cytoray_services.storage.location import StorageLocation
from cytoray_serving.jobs.store import Item, Job, Record

_GROUP = "zarr.json"  # of the folder; the arrays in it have their own
_OBJECTS = "objects"
Arrays = dict[str, NDArray[Any]]


def answer_location(job: Job, item: Item) -> StorageLocation:
    """Return the location of the OME-Zarr of an item."""
    return locate(job.request.output, job.allowed, field="output").joined(f"{item.name}.ome.zarr")


def cut(job: Job, item: Item, blocks: Blocks) -> Record:
    """Prepare the answer of an image: its OME-Zarr without pixels and without the metadata of the folder."""
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        blocks.create(Path(folder) / "answer")
        for name, body in _files(Path(folder) / "answer"):
            if name == _GROUP:
                _scratch(job, item).joined(_GROUP).write_bytes(body)
            else:
                answer_location(job, item).joined(name).write_bytes(body)
    return Record(
        kind="cut",
        item=item.index,
        core=blocks.core,
        blocks=len(blocks.tiles),
        numbers=blocks.numbered,
        megapixels=math.prod(blocks.shape) / 1e6,
    )


def answer_block(job: Job, item: Item, predictor: Predictor, blocks: Blocks, index: int) -> None:
    """Process one block: write it into the answer, or next to it if its objects must be numbered first."""
    answer = predictor.predict_block(blocks, index)
    core = blocks.tiles[index].core
    if answer.identities is None:
        open_answer(job, item)[(Ellipsis, *core)] = answer.values
        return
    start = np.array([part.start for part in core])
    values: Arrays = {"values": answer.values, "start": start, "identities": answer.identities}
    # Later one process reads only the objects: all of them together fit into its memory.
    _scratch(job, item).joined(f"{_OBJECTS}-{index}").write_bytes(_packed({"identities": answer.identities}))
    _scratch(job, item).joined(f"block-{index}").write_bytes(_packed(values))


def collect_objects(job: Job, item: Item, blocks: int) -> int:
    """Find the objects of an image after all its blocks, and return their number."""
    scratch = _scratch(job, item)
    found = [_unpacked(scratch.joined(f"{_OBJECTS}-{index}"))["identities"] for index in range(blocks)]
    objects, _ = all_objects(found)
    scratch.joined(_OBJECTS).write_bytes(_packed({"identities": objects}))
    return len(objects) - 1


def known_objects(job: Job, item: Item) -> NDArray[np.int64]:
    """Return the identities of all objects of an image, by number."""
    objects: NDArray[np.int64] = _unpacked(_scratch(job, item).joined(_OBJECTS))["identities"]
    return objects


def number_block(job: Job, item: Item, array: Any, objects: NDArray[np.int64], index: int) -> None:
    """Write a block with the final numbers of its objects."""
    block = _unpacked(_scratch(job, item).joined(f"block-{index}"))
    values = block["values"]
    core = tuple(
        slice(int(start), int(start) + length) for start, length in zip(block["start"], values.shape, strict=True)
    )
    array[core] = image_numbers(values, block["identities"], objects)


def open_answer(job: Job, item: Item) -> Any:
    """Return the zarr array of an answer for writing blocks."""
    import zarr

    return zarr.open_array(answer_location(job, item).zarr_store(writing=True), path="0", mode="r+")


def publish(job: Job, item: Item) -> StorageLocation:
    """Write the metadata that make the complete answer an OME-Zarr."""
    answer = answer_location(job, item)
    answer.joined(_GROUP).write_bytes(_scratch(job, item).joined(_GROUP).read_bytes())
    answer.settle()
    return answer


def remove_scratch(job: Job) -> None:
    """Remove the temporary files next to the answers of a job."""
    locate(job.request.output, job.allowed, field="output").joined(f".{job.id}").delete()


def write_zarr(target: StorageLocation, folder: Path) -> None:
    """Copy an OME-Zarr to a location; the metadata of the folder are written last."""
    for name, body in sorted(_files(folder), key=lambda file: file[0] == _GROUP):
        target.joined(name).write_bytes(body)


def _scratch(job: Job, item: Item) -> StorageLocation:
    return locate(job.request.output, job.allowed, field="output").joined(f".{job.id}").joined(item.name)


def _files(folder: Path) -> list[tuple[str, bytes]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in found]


def _packed(arrays: Arrays) -> bytes:
    import imagecodecs

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return bytes(imagecodecs.zstd_encode(buffer.getvalue(), level=1))


def _unpacked(source: StorageLocation) -> Arrays:
    import imagecodecs

    with np.load(io.BytesIO(imagecodecs.zstd_decode(source.read_bytes())), allow_pickle=False) as arrays:
        return dict(arrays)
