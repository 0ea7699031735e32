"""Where a registry can keep its tables and files: SQLite and a folder, or PostgreSQL and S3, started for the tests."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from cytoray_services.free_ports import free_port
from cytoray_services.settings import Settings

BUCKET = "models"
SQLITE, POSTGRESQL = "SQLite and a folder", "PostgreSQL and S3"
STORES = [pytest.param(SQLITE, id="sqlite"), pytest.param(POSTGRESQL, id="postgresql", marks=pytest.mark.e2e)]


class Files(Protocol):
    """The files of a registry, seen from outside of it."""

    def names(self) -> list[str]:
        """Return the path of every file."""
        ...

    def replace(self, name: str, data: bytes) -> None:
        """Overwrite a file."""
        ...

    def clear(self) -> None:
        """Remove all files."""
        ...


@dataclass(frozen=True)
class Folder:
    """Files in a folder."""

    root: Path

    def names(self) -> list[str]:
        return [str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()]

    def replace(self, name: str, data: bytes) -> None:
        (self.root / name).write_bytes(data)

    def clear(self) -> None:
        shutil.rmtree(self.root)


@dataclass(frozen=True)
class Objects:
    """Files in a bucket, under a prefix."""

    client: Any
    prefix: str

    def names(self) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=self.prefix)
        return [entry["Key"].removeprefix(self.prefix) for page in pages for entry in page.get("Contents", [])]

    def replace(self, name: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=self.prefix + name, Body=data)

    def clear(self) -> None:
        for name in self.names():
            self.client.delete_object(Bucket=BUCKET, Key=self.prefix + name)


@dataclass(frozen=True)
class Store:
    """A registry for one test."""

    settings: Settings
    files: Files
    environment: dict[str, str]


@dataclass(frozen=True)
class Servers:
    """PostgreSQL with a database `mlflow` that has all tables, and S3 with one bucket."""

    port: int
    environment: dict[str, str]
    objects: Any

    def store(self, home: Path, name: str) -> Store:
        """Make a registry of its own: a copy of the empty database, and a prefix of the bucket."""
        self.sql(f'CREATE DATABASE "{name}" TEMPLATE mlflow')
        settings = Settings(home=home, tracking_uri=self.uri(name), artifacts_uri=f"s3://{BUCKET}/{name}")
        return Store(settings, Objects(self.objects, f"{name}/"), self.environment)

    def uri(self, name: str) -> str:
        return f"postgresql://cytoray@127.0.0.1:{self.port}/{name}"

    def sql(self, statement: str) -> None:
        import psycopg

        connection = psycopg.connect(self.uri("postgres"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()


def local(home: Path) -> Settings:
    """Return the settings of a registry in a SQLite file."""
    return Settings(home=home, tracking_uri=f"sqlite:///{home / 'mlflow.db'}")


def open_store(request: pytest.FixtureRequest, home: Path) -> Store:
    """Return an empty registry of the kind that the test is run for."""
    if request.param == SQLITE:
        return Store(local(home), Folder(home / "artifacts"), {})
    servers: Servers = request.getfixturevalue("registry_servers")
    return servers.store(home, f"test-{secrets.token_hex(4)}")


@contextmanager
def start_servers() -> Iterator[Servers]:
    """Start both, or skip visibly where one is not installed."""
    for module in ("psycopg", "boto3", "moto.server"):
        pytest.importorskip(module, reason=f"{module} is not installed")
    from moto.server import ThreadedMotoServer

    with _postgres() as port:
        moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        moto.start()
        try:
            host, s3_port = moto.get_host_and_port()
            environment = {
                "MLFLOW_S3_ENDPOINT_URL": f"http://{host}:{s3_port}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
            servers = Servers(port, environment, _s3(environment))
            servers.objects.create_bucket(Bucket=BUCKET)
            servers.sql("CREATE DATABASE mlflow")
            _make_tables(servers.uri("mlflow"))
            yield servers
        finally:
            moto.stop()


def _s3(environment: dict[str, str]) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - moto takes anything
        region_name="us-east-1",
    )


def _make_tables(uri: str) -> None:
    """In a process of its own, for a database that somebody is connected to cannot be copied."""
    script = (
        "from pathlib import Path; from cytoray_services.registry import Registry; "
        "from cytoray_services.settings import Settings; "
        f"Registry.open(Settings(home=Path('/nonexistent'), tracking_uri={uri!r})).list()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=240)


@contextmanager
def _postgres() -> Iterator[int]:
    programs = _programs()
    # PostgreSQL refuses to run as root; Debian's package brings a user of its own.
    user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if user:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        command = [str(programs / "initdb"), "-D", str(data), "-U", "cytoray", "-A", "trust", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=120, **user)
        port = free_port()
        options = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-k", str(folder), "-F"]
        command = [str(programs / "postgres"), "-D", str(data), *options]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, **user)
        try:
            _await(programs, process, port, folder / "log")
            yield port
        finally:
            process.send_signal(signal.SIGINT)  # at once, whoever is still connected
            process.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = shutil.which("postgres")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders or not (folders[-1] / "initdb").exists():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return folders[-1]


def _await(programs: Path, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)
    pytest.fail(log.read_text())
