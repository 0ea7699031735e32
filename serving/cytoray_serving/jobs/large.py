"""Images that are too large for memory: workers answer their blocks, in any order and on any machine.

What a block's worker finds lies beside the answer, hidden, until all blocks are there: object numbers of the block's
own, and what objects of the whole image they are. Then every worker can write blocks with the final numbers. A block
is written in one step and the same whoever writes it, so that nothing is lost or twice when a worker is. What makes the
folder an OME-Zarr is written last.
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
from cytoray_serving.jobs.store import Item, Job, Record
from cytoray_serving.places import Place, place

_GROUP = "zarr.json"  # of the folder; arrays below have their own
_OBJECTS = "objects"
Arrays = dict[str, NDArray[Any]]


def answer_place(job: Job, item: Item) -> Place:
    """Return where the OME-Zarr of an item goes."""
    return place(job.request.output, job.allowed, field="output").joined(f"{item.name}.ome.zarr")


def cut(job: Job, item: Item, blocks: Blocks) -> Record:
    """Prepare the answer of an image: all of its OME-Zarr but the pixels and what makes it one."""
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        blocks.create(Path(folder) / "answer")
        for name, body in _files(Path(folder) / "answer"):
            if name == _GROUP:
                _scratch(job, item).joined(_GROUP).write_bytes(body)
            else:
                answer_place(job, item).joined(name).write_bytes(body)
    return Record(
        kind="cut",
        item=item.index,
        core=blocks.core,
        blocks=len(blocks.tiles),
        numbers=blocks.numbered,
        megapixels=math.prod(blocks.shape) / 1e6,
    )


def answer_block(job: Job, item: Item, predictor: Predictor, blocks: Blocks, index: int) -> None:
    """Answer one block: into the answer itself, or beside it where its objects have to be numbered first."""
    answer = predictor.predict_block(blocks, index)
    core = blocks.tiles[index].core
    if answer.identities is None:
        open_answer(job, item)[(Ellipsis, *core)] = answer.values
        return
    start = np.array([part.start for part in core])
    values: Arrays = {"values": answer.values, "start": start, "identities": answer.identities}
    # The objects alone are read again first, by one process: all of them together fit into its memory.
    _scratch(job, item).joined(f"{_OBJECTS}-{index}").write_bytes(_packed({"identities": answer.identities}))
    _scratch(job, item).joined(f"block-{index}").write_bytes(_packed(values))


def collect_objects(job: Job, item: Item, blocks: int) -> int:
    """Find out what objects an image has, all of whose blocks are answered; returns how many."""
    scratch = _scratch(job, item)
    found = [_unpacked(scratch.joined(f"{_OBJECTS}-{index}"))["identities"] for index in range(blocks)]
    objects, _ = all_objects(found)
    scratch.joined(_OBJECTS).write_bytes(_packed({"identities": objects}))
    return len(objects) - 1


def known_objects(job: Job, item: Item) -> NDArray[np.int64]:
    """Return the identities of all objects of an image, by their number."""
    objects: NDArray[np.int64] = _unpacked(_scratch(job, item).joined(_OBJECTS))["identities"]
    return objects


def number_block(job: Job, item: Item, array: Any, objects: NDArray[np.int64], index: int) -> None:
    """Write a block with the numbers that its objects have in the whole image."""
    block = _unpacked(_scratch(job, item).joined(f"block-{index}"))
    values = block["values"]
    core = tuple(
        slice(int(start), int(start) + length) for start, length in zip(block["start"], values.shape, strict=True)
    )
    array[core] = image_numbers(values, block["identities"], objects)


def open_answer(job: Job, item: Item) -> Any:
    """Return the zarr array of an answer, to write blocks to."""
    import zarr

    return zarr.open_array(answer_place(job, item).zarr_store(writing=True), path="0", mode="r+")


def publish(job: Job, item: Item) -> Place:
    """Make the answer an OME-Zarr, now that all of it is there."""
    answer = answer_place(job, item)
    answer.joined(_GROUP).write_bytes(_scratch(job, item).joined(_GROUP).read_bytes())
    return answer


def remove_scratch(job: Job) -> None:
    """Remove what lies beside the answers of a job, once nobody needs it any more."""
    place(job.request.output, job.allowed, field="output").joined(f".{job.id}").delete()


def write_zarr(target: Place, folder: Path) -> None:
    """Copy an OME-Zarr to a place; what makes the folder one is written last."""
    for name, body in sorted(_files(folder), key=lambda file: file[0] == _GROUP):
        target.joined(name).write_bytes(body)


def _scratch(job: Job, item: Item) -> Place:
    return place(job.request.output, job.allowed, field="output").joined(f".{job.id}").joined(item.name)


def _files(folder: Path) -> list[tuple[str, bytes]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in found]


def _packed(arrays: Arrays) -> bytes:
    import imagecodecs

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return bytes(imagecodecs.zstd_encode(buffer.getvalue(), level=1))


def _unpacked(source: Place) -> Arrays:
    import imagecodecs

    with np.load(io.BytesIO(imagecodecs.zstd_decode(source.read_bytes())), allow_pickle=False) as arrays:
        return dict(arrays)
