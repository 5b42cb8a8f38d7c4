"""Tensors in the Open Inference Protocol, version 2: JSON, JSON with binary tensors, and gRPC."""
