"""The one client of S3 stores: keys as they are, content as it was listed, errors, threads, processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from buckets import BUCKET, bucket_store, client
from cytoray_analysis.errors import PlatformError
from cytoray_services.datasets.remote.folder import RemoteFolder, StoredFile, list_folder
from cytoray_services.storage.allowed import Allowed
from cytoray_services.storage.locate import locate
from cytoray_services.storage.s3_client import list_objects, s3_client
from web_servers import serving

CONTENT = os.urandom(3 * 2**20 + 7)
NAMES = ("a.tif", "b?versionId=1", "b", "c d#e%20f", "[x]*.tif", "é")


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with bucket_store() as address:
        yield address


@pytest.fixture
def folder(store: str, tmp_path: Path) -> RemoteFolder:
    """Return a prefix with objects whose names mean something to others than S3."""
    for at, name in enumerate(NAMES):
        client().put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/{name}", Body=CONTENT[at:])
    client().put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/empty", Body=b"")
    return list_folder(f"s3://{BUCKET}/{tmp_path.name}")


@pytest.mark.slow
def test_keys_are_read_as_they_are_written(folder: RemoteFolder, tmp_path: Path) -> None:
    assert folder.read("empty") == b""
    for at, name in enumerate(NAMES):
        assert folder.files[name].size == len(CONTENT) - at
        assert folder.read(name) == CONTENT[at:]
    folder.fetch(folder.files, tmp_path)
    assert all((tmp_path / name).read_bytes() == CONTENT[at:] for at, name in enumerate(NAMES))


def test_a_listing_has_as_many_pages_as_the_store_sends() -> None:
    class Store:
        def call_s3(self, method: str, **asked: str) -> dict[str, Any]:
            assert (method, asked["Bucket"], asked["Prefix"]) == ("list_objects_v2", "b", "p/")
            page = int(asked.get("ContinuationToken", 0))
            contents = {} if page == 1 else {"Contents": [{"Key": f"p/{page}"}]}  # a page may be empty
            return contents | {"IsTruncated": page < 2, "NextContinuationToken": f"{page + 1}"}

    assert [one["Key"] for one in list_objects(Store(), "b", "p/")] == ["p/0", "p/2"]


@pytest.mark.slow
def test_threads_share_a_client_and_processes_do_not(folder: RemoteFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(s3_client()))
    thread.start()
    thread.join()
    assert found == [s3_client()]
    assert folder.read("a.tif") == CONTENT
    child = os.fork()
    if child == 0:
        os._exit(0 if folder.read("a.tif") == CONTENT else 1)
    assert os.waitpid(child, 0)[1] == 0
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    assert s3_client() is not found[0]


class _CutOff(BaseHTTPRequestHandler):
    """Says that an object has 1000 bytes, and sends 10 of them."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.send_header("ETag", '"tag"')
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"0123456789")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.mark.slow
def test_an_object_that_comes_in_part_is_an_error(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in serving(_CutOff):
        with pytest.raises(PlatformError, match="cannot access s3://images/a"):
            locate("s3://images/a", Allowed(buckets=("images",), s3_endpoint=f"http://{host}")).read_bytes()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        with pytest.raises(PlatformError, match="does not answer"):
            RemoteFolder("s3://images", {"a": StoredFile(1000, '"tag"')}).read("a")
