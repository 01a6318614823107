"""lightning-r1: train a reasoning model the DeepSeek-R1 way, on PyTorch Lightning."""

__version__ = "0.1.0"
