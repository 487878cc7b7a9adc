"""All that learns: torch, ONNX Runtime and numba over plain arrays. No Kafka, no clock, no `stream`."""

from models.kernels import keep_apart

keep_apart()
