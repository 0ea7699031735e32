"""Installs the checks of the front in Ray Serve, by ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``."""

from __future__ import annotations

import os
from typing import Any

from cytoray_serving.front.limits import ADDRESS, Front
from cytoray_serving.front.rules import current_rules


def middlewares() -> list[Any]:
    """Return the middleware for each HTTP server of Ray Serve in this process, and replace the gRPC servers.

    Ray Serve calls it before it starts either.
    """
    from ray.serve._private import grpc_util
    from starlette.middleware import Middleware

    from cytoray_serving.front.entrance import Entrance
    from cytoray_serving.front.grpc_server import guarded_server

    front = Front.of()
    server = guarded_server(front.secret, os.environ.get(ADDRESS), current_rules)
    vars(grpc_util)["gRPCGenericServer"] = server
    return [Middleware(Entrance, secret=front.secret, rules=current_rules)]
