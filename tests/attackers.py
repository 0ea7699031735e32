"""Callers that try to lock all others out of a service, each in a process of its own.

python tests/attackers.py ATTACK HOST PORT [TOKEN]

Prints ``ready`` when the attack stands, and keeps it up until its standard input is closed.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np

from serving_samples import tiff_bytes

SOURCE = "127.0.0.2"
MEGABYTE = 2**20
Door = tuple[str, int]


def half_open(door: Door, token: str) -> list[socket.socket]:
    """Begin 4,200 requests without a token, and end none."""
    begun = []
    for _ in range(4200):
        with suppress(OSError):  # the limit by address is what is looked for
            begun.append(_begin(door, b"POST /models/nuclei/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-"))
    return begun


def stalled_bodies(door: Door, token: str) -> list[socket.socket]:
    """Send a part of nine images with a token, and no more."""
    head = _head("/models/nuclei/predict", token, "image/tiff", 200 * MEGABYTE)
    return [_begin(door, head + bytes(MEGABYTE)) for _ in range(9)]


def chunked_bodies(door: Door, token: str) -> list[socket.socket]:
    """Send a part of 32 images that do not say how long they are, and no more."""
    head = _head("/models/nuclei/predict", token, "image/tiff", None)
    return [_begin(door, head + b"10000\r\n" + bytes(2**16) + b"\r\n") for _ in range(32)]


def large_without_token(door: Door, token: str) -> list[socket.socket]:
    """Send eight descriptions of jobs of 60 MB without a token, again and again."""
    head = _head("/models/nuclei/jobs", "", "application/json", 60 * MEGABYTE)
    body = b'{"inputs": "' + b"a" * (60 * MEGABYTE)

    def send() -> None:
        with suppress(OSError), _begin(door, head) as connection:
            connection.sendall(body)
            connection.recv(2**16)

    _send_on(send)
    return []


def large_over_grpc(door: Door, token: str) -> list[socket.socket]:
    """Call eight times with 60 MB and no token, over gRPC, again and again."""
    _send_on(lambda: _call(door, "ModelInfer"))
    return []


def large_questions_about_health(door: Door, token: str) -> list[socket.socket]:
    """Ask eight times with 60 MB and no token whether the server lives, over gRPC, again and again."""
    _send_on(lambda: _call(door, "ServerLive"))
    return []


def slow_readers(door: Door, token: str) -> list[socket.socket]:
    """Ask ten times for labels of 20 MB, and take none of them."""
    image = tiff_bytes(np.zeros((2290, 2290), np.uint8), compression="zlib")
    tensor = struct.pack("<I", len(image)) + image
    given = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tensor)}}
    wanted = {"name": "labels", "parameters": {"binary_data": True}}
    header = json.dumps({"inputs": [given], "outputs": [wanted]}).encode()
    head = _head("/v2/models/nuclei/infer", token, "application/octet-stream", len(header) + len(tensor))
    head = head[:-2] + f"Inference-Header-Content-Length: {len(header)}\r\n\r\n".encode()
    readers = [_begin(door, head + header + tensor, buffer=2**12) for _ in range(10)]
    for reader in readers:
        reader.settimeout(120)
        answer = reader.recv(2**10)  # the answer has come, so that what follows is waiting alone
        if not answer.startswith(b"HTTP/1.1 200"):
            sys.exit(f"expected an answer, got {answer!r}")
    return readers


OVER_GRPC = (large_over_grpc, large_questions_about_health)
ATTACKS = {
    made.__name__: made
    for made in (half_open, stalled_bodies, chunked_bodies, large_without_token, *OVER_GRPC, slow_readers)
}


@contextmanager
def under_attack(attack: Callable[..., object], door: Door, token: str) -> Iterator[None]:
    """Keep an attack up in another process."""
    command = [sys.executable, __file__, attack.__name__, door[0], str(door[1]), token]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attacker:
        assert attacker.stdout is not None
        assert attacker.stdin is not None
        try:
            assert attacker.stdout.readline() == "ready\n", f"{attack.__name__} did not come to stand"
            yield
        finally:
            attacker.stdin.close()
            attacker.kill()


def _call(door: Door, call: str) -> None:
    import grpc  # type: ignore[import-untyped]

    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"{door[0]}:{door[1]}", options=options) as channel, suppress(grpc.RpcError):
        channel.unary_unary(f"/inference.GRPCInferenceService/{call}")(bytes(60 * MEGABYTE), timeout=30)


def _send_on(send: Callable[[], None]) -> None:
    """Send in eight threads, again and again."""

    def run() -> None:
        while True:
            send()
            time.sleep(0.1)

    for _ in range(8):
        threading.Thread(target=run, daemon=True).start()
    time.sleep(2)


def _begin(door: Door, data: bytes, *, buffer: int | None = None) -> socket.socket:
    connection = socket.socket()
    if buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(30)
    connection.bind((SOURCE, 0))
    connection.connect(door)
    connection.sendall(data)
    return connection


def _head(path: str, token: str, kind: str, size: int | None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {kind}"]
    lines += ["Transfer-Encoding: chunked" if size is None else f"Content-Length: {size}"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return "\r\n".join([*lines, "", ""]).encode()


def main() -> None:
    name, host, port, *token = sys.argv[1:]
    held = ATTACKS[name]((host, int(port)), token[0] if token else "")
    print("ready", flush=True)
    sys.stdin.read()
    del held


if __name__ == "__main__":
    main()
