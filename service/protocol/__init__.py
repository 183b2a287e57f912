"""Open Inference Protocol v2: what clients of Triton and KServe ask, by REST and by gRPC."""
