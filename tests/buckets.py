"""An S3 store of the tests, and folders copied into it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BUCKET = "images"


@contextmanager
def bucket_store() -> Iterator[str]:
    """Run an S3 store with one bucket, and set the environment so that it is found; yields its address."""
    moto: Any = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each object else
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in {
                "AWS_ENDPOINT_URL": address,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }.items():
                environment.setenv(name, value)
            client().create_bucket(Bucket=BUCKET)
            yield address
    finally:
        server.stop()


def client() -> Any:
    """Return a client of the store that the environment names."""
    import boto3

    return boto3.client("s3")


def copy_to_bucket(folder: Path, prefix: str) -> str:
    """Copy a folder into the bucket and return its URI."""
    store = client()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put_object(Bucket=BUCKET, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes())
    return f"s3://{BUCKET}/{prefix}"
