"""Messages of the Open Inference Protocol, generated from ``open_inference.proto``; do not edit.

To generate them again, with grpcio-tools 1.85.1 in a separate environment, in the folder ``serving``::

    python -m grpc_tools.protoc -I . --python_out=. --grpc_python_out=. \
        cytoray_serving/open_inference/protocol/open_inference.proto

They require grpcio and protobuf of at least the versions that generated them. A process that imports them cannot also
import ``tritonclient.grpc``: both register the same names.
"""
