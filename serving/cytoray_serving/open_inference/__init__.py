"""The Open Inference Protocol (version 2), over REST and gRPC: what ``tritonclient`` and other programs speak.

``tensors`` knows the values, ``messages`` the bodies of REST requests, ``metadata`` what models take and give,
``translate`` turns tensors into questions and answers into tensors; ``rest`` and ``grpc`` are the two doors.
"""
