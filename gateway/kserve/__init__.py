"""KServe's Open Inference Protocol v2 on the gRPC port, with Triton's tensors for text."""
