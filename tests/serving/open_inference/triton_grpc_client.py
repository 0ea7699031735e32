"""Asks a service with an unmodified tritonclient over gRPC, in a process of its own.

tritonclient registers the messages of the protocol under the names that the service's have, and one process holds
each name once.

    python triton_grpc_client.py HOST:PORT FOLDER

reads ``questions.npz``, whose arrays are named ``model.input``, and writes ``answers.npz``, ``model.output``, and
``said.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from serving_samples import tiff_bytes

TOKEN = {"authorization": "Bearer sesame"}


def tensor(name: str, values: NDArray[Any]) -> Any:
    one = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    one.set_data_from_numpy(values)
    return one


def refused(call: Any, *arguments: Any, **options: Any) -> list[str]:
    try:
        return ["answered", str(call(*arguments, **options))]
    except InferenceServerException as error:
        return [str(error.status()).removeprefix("StatusCode."), str(error.message())]


def ask(client: Any, folder: Path) -> dict[str, Any]:
    questions = np.load(folder / "questions.npz")
    answers: dict[str, NDArray[Any]] = {}
    said: dict[str, Any] = {}
    for model in ("nuclei", "stain", "cells", "linker"):
        inputs = [tensor(key.partition(".")[2], questions[key]) for key in questions if key.startswith(f"{model}.")]
        answer = client.infer(model, inputs, request_id=model, headers=TOKEN)
        response = answer.get_response(as_json=True)
        said[model] = {name: response[name] for name in ("model_name", "id", "parameters")}
        for output in response["outputs"]:
            values = answer.as_numpy(output["name"])
            answers[f"{model}.{output['name']}"] = values.astype("S") if values.dtype == object else values

    image = questions["nuclei.image"]
    file = tensor("image", np.array([tiff_bytes(image)], dtype=object))
    wanted = [triton.InferRequestedOutput("labels")]
    answer = client.infer("nuclei", [file], model_version="3", outputs=wanted, headers=TOKEN)
    answers["file.labels"] = answer.as_numpy("labels")
    metadata = client.get_model_metadata("cells", headers=TOKEN, as_json=True)
    small = [tensor("image", image)]
    said |= {
        "outputs": [output.name for output in answer.get_response().outputs],
        "version": answer.get_response().model_version,
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("nuclei", "3", headers=TOKEN),
        "server": client.get_server_metadata(headers=TOKEN).name,
        "inputs": [one["name"] for one in metadata["inputs"]],
        "boxes": [one["shape"] for one in metadata["outputs"] if one["name"] == "boxes"],
        "no token": refused(client.infer, "nuclei", small),
        "no model": refused(client.infer, "nucleoli", small, headers=TOKEN),
        "no version": refused(client.is_model_ready, "nuclei", "4", headers=TOKEN),
        "channels": refused(client.infer, "nuclei", [tensor("image", np.zeros((5, 8, 8)))], headers=TOKEN),
        "output": refused(
            client.infer, "nuclei", small, outputs=[triton.InferRequestedOutput("tracks")], headers=TOKEN
        ),
        "timeout": refused(client.infer, "nuclei", small, timeout=1, headers=TOKEN),
        "client timeout": refused(client.infer, "nuclei", small, client_timeout=1e-4, headers=TOKEN),
    }
    np.savez(folder / "answers.npz", **answers)  # type: ignore[arg-type]
    return said


if __name__ == "__main__":
    place = Path(sys.argv[2])
    with triton.InferenceServerClient(sys.argv[1]) as client:
        (place / "said.json").write_text(json.dumps(ask(client, place)))
