"""The client of S3 stores, with s3fs.

Credentials, the region and ``AWS_ENDPOINT_URL`` come from the environment, as boto3 reads them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from cytoray_analysis.errors import PlatformError

_PIECE = 2**20
# Another store or identity in the environment needs another client.
_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")


def s3_client(
    endpoint: str | None = None, *, read_seconds: int = 20, retries: int = 1, asynchronous: bool = False
) -> Any:
    """Return an ``s3fs.S3FileSystem``, shared by all threads of a process. Use it inside :func:`plain_errors`.

    Parameters
    ----------
    endpoint
        Address of the store; None for that of the environment, or Amazon's.
    read_seconds, retries
        Read timeout, and number of retries of a request.
    asynchronous
        Whether methods run in the event loop of the caller, as in zarr.
    """
    environment = map(os.environ.get, _ENVIRONMENT)
    return _client(endpoint, read_seconds, retries, asynchronous, os.getpid(), *environment)


@lru_cache(maxsize=8)
def _client(endpoint: str | None, read_seconds: int, retries: int, asynchronous: bool, *_: int | str | None) -> Any:
    import s3fs

    config = {
        "connect_timeout": 5,
        "read_timeout": read_seconds,
        "retries": {"max_attempts": retries, "mode": "standard"},
        "max_pool_connections": 16,
    }
    client = s3fs.S3FileSystem(
        endpoint_url=endpoint,
        config_kwargs=config,
        asynchronous=asynchronous,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    client.retries = 1  # of s3fs, in addition to those of botocore
    return client


def list_objects(client: Any, bucket: str, prefix: str) -> Iterator[Mapping[str, Any]]:
    """Yield ``Key``, ``Size`` and ``ETag`` of all objects with a prefix."""
    more: dict[str, str] | None = {}
    while more is not None:
        page = client.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        yield from page.get("Contents", ())
        more = {"ContinuationToken": page["NextContinuationToken"]} if page.get("IsTruncated") else None


def read_pinned(client: Any, bucket: str, key: str, etag: str) -> Iterator[bytes]:
    """Yield the content of an object in pieces; the store rejects the request if its ETag has changed."""
    from fsspec.asyn import sync

    body = client.call_s3("get_object", Bucket=bucket, Key=key, IfMatch=etag)["Body"]
    try:
        while piece := sync(client.loop, body.read, _PIECE):
            yield piece
    finally:
        client.loop.call_soon_threadsafe(body.close)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise :class:`ConnectionError` for errors of botocore and aiohttp; s3fs raises OSError for errors of a store.

    Raises
    ------
    PlatformError
        s3fs is not installed.
    """
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from s3fs.core import S3_RETRYABLE_ERRORS
    except ImportError as error:
        raise PlatformError(
            "files in s3:// need s3fs, which is not installed", hint="pip install 'cytoray[s3]'"
        ) from error
    try:
        yield
    except (BotoCoreError, ClientError, *S3_RETRYABLE_ERRORS) as error:
        raise ConnectionError(str(error)) from error


def refusal_code(error: BaseException) -> str | None:
    """Return the error code of a store, such as ``NoSuchKey`` or ``NoCredentials``; None if it did not answer."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    cause = error.__cause__
    if isinstance(cause, NoCredentialsError | PartialCredentialsError):
        return "NoCredentials"
    response = getattr(cause, "response", None)
    return None if response is None else str(response.get("Error", {}).get("Code", ""))
