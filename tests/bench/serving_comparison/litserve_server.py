"""LitServe with batching: the file is the body, the label TIFF is the answer.

python -m serving_comparison.litserve_server PORT

LitServe reads the types of the methods as they are, so they are not postponed here.
"""

import sys
from typing import Annotated

import litserve  # type: ignore[import-not-found, unused-ignore]
from fastapi import Body, Response
from serving_comparison.answering import BATCH, Answer, load_from_environment


class Labels(litserve.LitAPI):  # type: ignore[misc, unused-ignore]
    def setup(self, device: str) -> None:
        self._answer: Answer = load_from_environment()

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/tiff")]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, batch: list[bytes]) -> list[bytes]:
        return self._answer(batch)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        return output

    def encode_response(self, output: bytes) -> Response:
        return Response(output, media_type="image/tiff")


if __name__ == "__main__":
    server = litserve.LitServer(Labels(max_batch_size=BATCH, batch_timeout=0.005), accelerator="cpu", timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
