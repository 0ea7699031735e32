"""Engines that take optimizer steps: plain PyTorch or DeepSpeed."""
