"""The Open Inference Protocol (version 2) over REST and gRPC, for ``tritonclient`` and other clients.

``tensors`` reads values, ``messages`` the bodies of REST requests, ``metadata`` describes inputs and outputs of models,
``translate`` converts tensors to questions and answers to tensors; ``rest`` and ``grpc`` are the two interfaces.
"""
