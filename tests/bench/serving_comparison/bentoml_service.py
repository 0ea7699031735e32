"""BentoML with adaptive batching: a batchable API of one list in and one list out.

Files come as they are, in multipart forms. A batchable API answers with a list, and lists go out as JSON, so that
answers are base64 in it.

bentoml serve serving_comparison.bentoml_service:Labels
"""

from __future__ import annotations

import base64
from pathlib import Path

import bentoml  # type: ignore[import-not-found, unused-ignore]
from serving_comparison.answering import BATCH, load_from_environment


@bentoml.service(workers=1, traffic={"timeout": 120})  # type: ignore[untyped-decorator, unused-ignore]
class Labels:
    def __init__(self) -> None:
        self._answer = load_from_environment()

    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=60_000)  # type: ignore[untyped-decorator]
    def predict(self, images: list[Path]) -> list[str]:
        return [base64.b64encode(one).decode() for one in self._answer([image.read_bytes() for image in images])]
