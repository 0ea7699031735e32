"""Messages of the Open Inference Protocol, made from ``open_inference.proto``; not edited by hand.

To make them anew, with grpcio-tools 1.85.1 in an environment of its own, in the folder ``serving``::

    python -m grpc_tools.protoc -I . --python_out=. --grpc_python_out=. \
        cytoray_serving/open_inference/protocol/open_inference.proto

They ask for grpcio and protobuf at least as new as those that they were made with. A process that imports them cannot
import ``tritonclient.grpc``, too: both register the same names.
"""
