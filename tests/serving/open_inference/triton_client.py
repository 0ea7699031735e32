"""Asks a running service as people do who have tritonclient, over HTTP and gRPC, in a process of its own.

    python triton_client.py HTTP_ADDRESS GRPC_ADDRESS IMAGE.npy

prints both label images as JSON.
"""

import json
import sys
from types import ModuleType
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import np_to_triton_dtype


def ask(library: ModuleType, address: str, image: Any) -> Any:
    client = library.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("nuclei")
    tensor = library.InferInput("image", list(image.shape), np_to_triton_dtype(image.dtype))
    tensor.set_data_from_numpy(image)
    return client.infer("nuclei", [tensor]).as_numpy("labels").tolist()


def main() -> None:
    http_address, grpc_address, path = sys.argv[1:]
    image = np.load(path)
    answers = ask(tritonclient.http, http_address, image), ask(tritonclient.grpc, grpc_address, image)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
