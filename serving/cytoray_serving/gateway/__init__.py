"""Gateways: from a request to exact versions of models, and back to a response."""
