"""The front of a service: the proxy that every caller meets first, and what is checked before a request is read.

Ray Serve starts an HAProxy on each node. It has no setting for most of what keeps strangers from locking a service,
so Serve is given :mod:`launcher` in place of HAProxy's binary (``RAY_SERVE_HAPROXY_BINARY_PATH``): it completes the
configuration, then becomes HAProxy. Behind it, :mod:`entrance` checks requests over HTTP and :mod:`grpc_server` calls
over gRPC, in the gateways' own processes, before Serve reads a body. :mod:`hook` puts both in their places.
See ``docs/decisions/0009-the-front.md``.
"""
