"""Open Inference Protocol v2 by gRPC, an extra of the package."""
