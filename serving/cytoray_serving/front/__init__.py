"""The front of a service: the proxy in front of the gateways, and the checks before a request is read.

Ray Serve starts an HAProxy on each node, but has no settings for most of the limits that protect a service from other
callers. So Ray Serve runs :mod:`launcher` instead of the HAProxy binary (``RAY_SERVE_HAPROXY_BINARY_PATH``): it
completes the configuration, then becomes HAProxy. Behind it, in the process of a gateway, :mod:`entrance` checks HTTP
requests and :mod:`grpc_server` checks gRPC calls before Ray Serve reads a body. :mod:`hook` installs both.
See ``docs/decisions/0009-the-front.md``.
"""
