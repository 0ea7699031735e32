"""MLflow's scoring server, which has no batching of its own: a model from code.

It takes tables (JSON, CSV, Parquet) and answers with JSON, so that files go both ways as base64 in JSON.

python -m serving_comparison.mlflow_model FOLDER     saves the model that ``mlflow models serve -m FOLDER`` serves
"""

from __future__ import annotations

import base64
import sys
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import save_model
from mlflow.pyfunc.model import PythonModel
from serving_comparison.answering import load_from_environment


class Labels(PythonModel):  # type: ignore[misc, unused-ignore]
    def load_context(self, context: Any) -> None:
        self._answer = load_from_environment()

    def predict(self, context: Any, model_input: list[str], params: Any = None) -> list[str]:
        return [base64.b64encode(one).decode() for one in self._answer([base64.b64decode(one) for one in model_input])]


if __name__ == "__main__":
    save_model(sys.argv[1], python_model=__file__, pip_requirements=["mlflow==3.17.2"])
else:
    set_model(Labels())
