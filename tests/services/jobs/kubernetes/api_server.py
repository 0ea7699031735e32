"""A small API server for tests: real HTTP with the answers of a real one, and faults that can be asked for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from services.jobs.kubernetes.objects import KINDS, Json, Objects, StatusError, qualified

TOKEN = "a-token-of-the-tests"  # noqa: S105
USER = "ann"


@dataclass
class PodLog:
    """What a container prints; `broken` ends the connections of those who follow, once."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    broken: bool = False


@dataclass
class Fault:
    """What happens to the next requests that it fits instead of an answer."""

    fits: Callable[[str, str], bool]
    times: int
    act: Callable[[Any], None]


class ApiServer:
    """An API server in a thread.

    Attributes
    ----------
    objects
        What it keeps; tests put things in as users and controllers would.
    forbidden
        Pairs of verb and resource that the caller may not use.
    groups
        The API groups that are installed, besides the core.
    requests
        Method and path of all that was asked.
    """

    def __init__(self) -> None:
        self.objects = Objects()
        self.forbidden: set[tuple[str, str]] = set()
        self.groups = {"ray.io/v1", "scheduling.k8s.io/v1", "authorization.k8s.io/v1"}
        self.admission: Callable[[str, Json], None] = lambda resource, body: None
        self.logs: dict[str, PodLog] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.page_size = 10_000
        server = self

        class Handler(_Handler):
            api = server

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def kubeconfig(self, folder: Path, *, token: str = TOKEN, url: str | None = None, namespace: str = "lab") -> Path:
        """Write a kubeconfig with the contexts `lab` and `other`."""
        cluster = {"cluster": {"server": url or self.url}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "clusters": [{"name": "tests", **cluster}],
            "users": [{"name": USER, "user": {"token": token}}],
            "contexts": [
                {"name": "lab", "context": {"cluster": "tests", "user": USER, "namespace": namespace}},
                {"name": "other", "context": {"cluster": "tests", "user": USER}},
                {"name": "arn:cluster/lab", "context": {"cluster": "tests", "user": USER, "namespace": "deep"}},
            ],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    def fail(self, code: int, *, path: str = "", method: str = "", times: int = 1, body: Json | None = None) -> None:
        """Answer the next fitting requests with an error."""

        def act(handler: _Handler) -> None:
            headers = {"Retry-After": "0"} if code == 429 else {}
            handler.answer(
                code, body or {"kind": "Status", "message": "etcdserver: leader changed", "code": code}, headers
            )

        self.instead(method, path, times, act)

    def hang_up(self, *, path: str = "", method: str = "", times: int = 1) -> None:
        """Close the connection of the next fitting requests without an answer."""
        self.instead(method, path, times, lambda handler: handler.connection.close())

    def stall(self, seconds: float, *, path: str = "", method: str = "", times: int = 1) -> None:
        """Take longer over the next fitting requests."""

        def act(handler: _Handler) -> None:
            time.sleep(seconds)
            handler.connection.close()

        self.instead(method, path, times, act)

    def instead(self, method: str, path: str, times: int, act: Callable[[Any], None]) -> None:
        """Do something else with the next fitting requests than to answer them."""
        self.faults.append(Fault(lambda verb, at: verb.startswith(method) and path in at, times, act))

    def print(self, pod: str, *lines: str) -> None:
        """Let a container print."""
        with self.objects.changed:
            log = self.logs.setdefault(pod, PodLog())
            for line in lines:
                log.lines.append((f"2026-11-20T10:00:{len(log.lines) // 1000:02}.{len(log.lines) % 1000:09}Z", line))
            self.objects.changed.notify_all()

    def end_log(self, pod: str) -> None:
        with self.objects.changed:
            self.logs.setdefault(pod, PodLog()).ended = True
            self.objects.changed.notify_all()

    def break_logs(self, pod: str) -> None:
        with self.objects.changed:
            self.logs[pod].broken = True
            self.objects.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one packet: otherwise each answer waits for an acknowledgement

    def log_message(self, *args: Any) -> None:
        return

    def answer(self, code: int, body: Json | str, headers: dict[str, str] | None = None) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if isinstance(body, str) else "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        self.api.requests.append((self.command, url.path))
        for fault in self.api.faults:
            if fault.times > 0 and fault.fits(self.command, self.path):
                fault.times -= 1
                self.close_connection = True
                fault.act(self)
                return
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise StatusError(401, "Unauthorized", "Unauthorized")
            self._route(url.path, query, json.loads(raw) if raw else {})
        except StatusError as error:
            self.answer(error.code, error.body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def _route(self, path: str, query: dict[str, str], body: Json) -> None:
        parts = path.strip("/").split("/")
        if parts[0] == "api":
            group, rest = "v1", parts[2:]
        else:
            group, rest = "/".join(parts[1:3]), parts[3:]
            versions = [one for one in self.api.groups if one.startswith(parts[1] + "/")]
            if not versions or (len(parts) > 2 and group not in self.api.groups):
                self.answer(404, "404 page not found")
                return
            if len(parts) == 2:
                self.answer(
                    200, {"kind": "APIGroup", "name": parts[1], "preferredVersion": {"groupVersion": versions[0]}}
                )
                return
        if not rest:
            kinds = [{"name": name, "kind": kind} for name, (of, kind) in KINDS.items() if of == group]
            self.answer(200, {"kind": "APIResourceList", "groupVersion": group, "resources": kinds})
            return
        if rest[0] == "selfsubjectaccessreviews":
            asked = body["spec"]["resourceAttributes"]
            allowed = (asked["verb"], asked["resource"]) not in self.api.forbidden
            self.answer(201, {**body, "status": {"allowed": allowed}})
            return
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, part = [*rest, "", ""][:3]
        self._check_rights(resource, name, namespace, query, part)
        self._serve(resource, namespace, name, part, query, body)

    def _check_rights(self, resource: str, name: str, namespace: str, query: dict[str, str], part: str) -> None:
        verb = {"GET": "get" if name else "list", "POST": "create", "PATCH": "patch", "DELETE": "delete"}[self.command]
        verb = "watch" if "watch" in query else verb
        what = f"{resource}/{part}" if part else resource
        creates = self.command == "PATCH" and name not in self.api.objects.names(resource, namespace)
        for one in (verb, *(["create"] if creates else [])):
            if (one, what) in self.api.forbidden:
                group = KINDS[resource][0].rpartition("/")[0]
                where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
                named = f' "{name}"' if name else ""
                raise StatusError(
                    403,
                    "Forbidden",
                    f'{qualified(resource)}{named} is forbidden: User "{USER}" cannot {one} resource "{what}" '
                    f'in API group "{group}"{where}',
                    kind=resource,
                )

    def _serve(self, resource: str, namespace: str, name: str, part: str, query: dict[str, str], body: Json) -> None:
        objects = self.api.objects
        manager = query.get("fieldManager", "OpenAPI-Generator")
        if part == "log":
            self._serve_log(objects.get("pods", namespace, name), query)
        elif self.command == "POST":
            self.api.admission(resource, body)
            self.answer(201, objects.create(resource, namespace, body, manager))
        elif self.command == "DELETE":
            self.answer(200, objects.delete(resource, namespace, name))
        elif self.command == "PATCH" and self.headers["Content-Type"] == "application/apply-patch+yaml":
            self.api.admission(resource, body)
            force = query.get("force") == "true"
            self.answer(200, objects.apply(resource, namespace, name, body, manager, force=force))
        elif self.command == "PATCH":
            assert self.headers["Content-Type"] == "application/merge-patch+json"
            self.answer(200, objects.merge(resource, namespace, name, body, manager))
        elif name:
            self.answer(200, objects.get(resource, namespace, name))
        elif query.get("watch") == "true":
            version = int(query.get("resourceVersion") or objects.version)
            seconds = float(query.get("timeoutSeconds") or 30)
            self._stream(
                json.dumps(one) for one in objects.watch(resource, namespace, version, _selectors(query), seconds)
            )
        else:
            self._serve_list(resource, namespace, query)

    def _serve_list(self, resource: str, namespace: str, query: dict[str, str]) -> None:
        objects = self.api.objects
        found = objects.list(resource, namespace, _selectors(query))
        start, version = 0, objects.version
        if "continue" in query:
            start, version = (int(one) for one in query["continue"].split("."))
            if objects.is_expired(version):
                message = "The provided continue parameter is too old to display a consistent list result."
                raise StatusError(410, "Expired", message)
        size = min(self.api.page_size, int(query.get("limit") or 10_000))
        metadata: Json = {"resourceVersion": str(version)}
        if start + size < len(found):
            metadata |= {"continue": f"{start + size}.{version}", "remainingItemCount": len(found) - start - size}
        group, kind = KINDS[resource]
        page = [{key: value for key, value in one.items() if key not in ("kind", "apiVersion")} for one in found]
        self.answer(
            200, {"kind": f"{kind}List", "apiVersion": group, "metadata": metadata, "items": page[start : start + size]}
        )

    def _serve_log(self, pod: Json, query: dict[str, str]) -> None:
        name, container = pod["metadata"]["name"], query.get("container", "")
        log = self.api.logs.get(name)
        if log is None:
            raise StatusError(
                400, "BadRequest", f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            )
        self._stream(self._log_lines(log, query))

    def _log_lines(self, log: PodLog, query: dict[str, str]) -> Any:
        at, since = 0, query.get("sinceTime", "")[:19]
        while True:
            with self.api.objects.changed:
                new = log.lines[at:]
                if not new and (log.ended or "follow" not in query):
                    return
                if log.broken:
                    log.broken = False
                    raise ConnectionResetError
                if not new:
                    self.api.objects.changed.wait(0.5)
            at += len(new)
            for moment, line in new:
                if moment[:19] >= since:  # a real one counts whole seconds, too
                    yield f"{moment} {line}" if "timestamps" in query else line

    def _stream(self, lines: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        for line in lines:
            data = (line + "\n").encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def _selectors(query: dict[str, str]) -> list[tuple[str, str]]:
    pairs = []
    for kind, text in (("label", query.get("labelSelector")), ("field", query.get("fieldSelector"))):
        for one in (text or "").split(","):
            if one:
                name, _, value = one.partition("=")
                pairs.append((f"{kind}:{name}", value.lstrip("=")))
    return pairs
