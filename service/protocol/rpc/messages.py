"""Messages of the gRPC service `inference.GRPCInferenceService`.

They are described here, in a pool of their own: a process that also is a client, and has the same names from its
client's library, has both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
_FILE = "inference.proto"

_NAMED = {"name": "1 string", "version": "2 string"}
_TENSOR = {"name": "1 string", "datatype": "2 string", "shape": "3 repeated int64"}
_PARAMETERS = "map InferParameter"
_COUNTED = {"count": "1 uint64", "ns": "2 uint64"}

_MESSAGES: Mapping[str, Mapping[str, str]] = {
    "ServerLiveRequest": {},
    "ServerLiveResponse": {"live": "1 bool"},
    "ServerReadyRequest": {},
    "ServerReadyResponse": {"ready": "1 bool"},
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": {"ready": "1 bool"},
    "ServerMetadataRequest": {},
    "ServerMetadataResponse": {**_NAMED, "extensions": "3 repeated string"},
    "ModelMetadataRequest": _NAMED,
    "ModelMetadataResponse.TensorMetadata": _TENSOR,
    "ModelMetadataResponse": {
        "name": "1 string",
        "versions": "2 repeated string",
        "platform": "3 string",
        "inputs": "4 repeated ModelMetadataResponse.TensorMetadata",
        "outputs": "5 repeated ModelMetadataResponse.TensorMetadata",
    },
    "InferParameter": {
        "bool_param": "1 one bool",
        "int64_param": "2 one int64",
        "string_param": "3 one string",
        "double_param": "4 one double",
        "uint64_param": "5 one uint64",
    },
    "InferTensorContents": {
        "bool_contents": "1 repeated bool",
        "int_contents": "2 repeated int32",
        "int64_contents": "3 repeated int64",
        "uint_contents": "4 repeated uint32",
        "uint64_contents": "5 repeated uint64",
        "fp32_contents": "6 repeated float",
        "fp64_contents": "7 repeated double",
        "bytes_contents": "8 repeated bytes",
    },
    "ModelInferRequest.InferInputTensor": {
        **_TENSOR,
        "parameters": f"4 {_PARAMETERS}",
        "contents": "5 InferTensorContents",
    },
    "ModelInferRequest.InferRequestedOutputTensor": {"name": "1 string", "parameters": f"2 {_PARAMETERS}"},
    "ModelInferRequest": {
        "model_name": "1 string",
        "model_version": "2 string",
        "id": "3 string",
        "parameters": f"4 {_PARAMETERS}",
        "inputs": "5 repeated ModelInferRequest.InferInputTensor",
        "outputs": "6 repeated ModelInferRequest.InferRequestedOutputTensor",
        "raw_input_contents": "7 repeated bytes",
    },
    "ModelInferResponse.InferOutputTensor": {
        **_TENSOR,
        "parameters": f"4 {_PARAMETERS}",
        "contents": "5 InferTensorContents",
    },
    "ModelInferResponse": {
        "model_name": "1 string",
        "model_version": "2 string",
        "id": "3 string",
        "parameters": f"4 {_PARAMETERS}",
        "outputs": "5 repeated ModelInferResponse.InferOutputTensor",
        "raw_output_contents": "6 repeated bytes",
    },
    "ModelParameter": {"string_value": "1 string"},
    "ModelInput": {
        "name": "1 string",
        "data_type": "2 enum DataType",
        "dims": "4 repeated int64",
        "optional": "8 bool",
    },
    "ModelOutput": {"name": "1 string", "data_type": "2 enum DataType", "dims": "3 repeated int64"},
    "ModelConfig": {
        "name": "1 string",
        "platform": "2 string",
        "max_batch_size": "4 int32",
        "input": "5 repeated ModelInput",
        "output": "6 repeated ModelOutput",
        "parameters": "14 map ModelParameter",
        "backend": "17 string",
    },
    "ModelConfigRequest": _NAMED,
    "ModelConfigResponse": {"config": "1 ModelConfig"},
    "StatisticDuration": _COUNTED,
    "InferStatistics": {
        name: f"{number} StatisticDuration"
        for number, name in enumerate(
            ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"),
            1,
        )
    },
    "ModelStatistics": {
        **_NAMED,
        "last_inference": "3 uint64",
        "inference_count": "4 uint64",
        "execution_count": "5 uint64",
        "inference_stats": "6 InferStatistics",
    },
    "ModelStatisticsRequest": _NAMED,
    "ModelStatisticsResponse": {"model_stats": "1 repeated ModelStatistics"},
    "RepositoryIndexRequest": {"repository_name": "1 string", "ready": "2 bool"},
    "RepositoryIndexResponse.ModelIndex": {**_NAMED, "state": "3 string", "reason": "4 string"},
    "RepositoryIndexResponse": {"models": "1 repeated RepositoryIndexResponse.ModelIndex"},
}
"""For each message its fields: number, how often, and type; `one` of several that exclude each other."""

_DATA_TYPES = {"TYPE_INVALID": 0, "TYPE_BOOL": 1, "TYPE_UINT8": 2, "TYPE_FP32": 11, "TYPE_STRING": 13}

METHODS = (
    *("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer"),
    *("ModelConfig", "ModelStatistics", "RepositoryIndex"),
)
"""Calls of the service; each takes a message `...Request` and gives one `...Response`."""


def _fill(field: FieldDescriptorProto, kind: str) -> None:
    """Give a field its type, which is a plain one or names a message."""
    plain = getattr(FieldDescriptorProto, f"TYPE_{kind.upper()}", None)
    if plain is not None:
        field.type = plain
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"


def _describe(message: DescriptorProto, full: str, fields: Mapping[str, str]) -> None:
    for name, told in fields.items():
        number, *manner, kind = told.split()
        field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
        if manner == ["map"]:
            entry = message.nested_type.add(name=f"{name.title()}Entry")
            entry.options.map_entry = True
            key = entry.field.add(name="key", number=1, label=FieldDescriptorProto.LABEL_OPTIONAL)
            _fill(key, "string")
            _fill(entry.field.add(name="value", number=2, label=FieldDescriptorProto.LABEL_OPTIONAL), kind)
            field.label = FieldDescriptorProto.LABEL_REPEATED
            _fill(field, f"{full}.{entry.name}")
        elif manner == ["enum"]:
            field.type, field.type_name = FieldDescriptorProto.TYPE_ENUM, f".{PACKAGE}.{kind}"
        else:
            _fill(field, kind)
        if manner == ["repeated"]:
            field.label = FieldDescriptorProto.LABEL_REPEATED
        elif manner == ["one"]:
            if not message.oneof_decl:
                message.oneof_decl.add(name="parameter_choice")
            field.oneof_index = 0


def _file() -> FileDescriptorProto:
    found = FileDescriptorProto(name=_FILE, package=PACKAGE, syntax="proto3")
    data_type = found.enum_type.add(name="DataType")
    for name, number in _DATA_TYPES.items():
        data_type.value.add(name=name, number=number)
    made: dict[str, DescriptorProto] = {}
    for full in sorted(_MESSAGES, key=lambda one: one.count(".")):
        outer, _, name = full.rpartition(".")
        made[full] = made[outer].nested_type.add(name=name) if outer else found.message_type.add(name=name)
        _describe(made[full], full, _MESSAGES[full])
    service = found.service.add(name=SERVICE.rpartition(".")[2])
    for method in METHODS:
        named = f".{PACKAGE}.{method}"
        service.method.add(name=method, input_type=f"{named}Request", output_type=f"{named}Response")
    return found


POOL: Any = DescriptorPool()
POOL.AddSerializedFile(_file().SerializeToString())


def message_class(name: str) -> Any:
    """The class of a message."""
    return GetMessageClass(POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))
