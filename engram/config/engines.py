"""Engines and precisions: the ways that answers are computed, engines by a name and a number."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["eager-1", "onnxruntime-1", "onnxruntime-2", "openvino-1"]
"""A number is another engine: whatever changes a bit of what an engine computes gives it the next one."""

ONNX_RUNTIME: EngineName = "onnxruntime-1"
"""ONNX Runtime for the networks that a user brought, each image alone; all else is computed as by `eager-1`."""

ONNX_RUNTIME_2: EngineName = "onnxruntime-2"
"""The same, and the convolutions of tasks' networks by ONNX Runtime, too."""

BY_ONNX_RUNTIME: frozenset[EngineName] = frozenset({ONNX_RUNTIME, ONNX_RUNTIME_2})
"""Engines that need the extra `onnx`."""

OPENVINO: EngineName = "openvino-1"
"""OpenVINO for the convolutions of tasks' networks, each image alone; all else is computed as by `eager-1`."""

FIRST_ENGINE: EngineName = "eager-1"
"""PyTorch's own operations one by one; what is stored and names no engine was made with it."""

Precision = Literal["fp32", "bf16"]
"""Numbers that convolutions of tasks' networks multiply and give: of 32 bits, or of 16 with as large an exponent."""

FIRST_PRECISION: Precision = "fp32"
"""What is stored and names no precision was made in this one."""
