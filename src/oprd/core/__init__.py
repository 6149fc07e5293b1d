"""The method: pure functions over tensors that import torch alone."""
