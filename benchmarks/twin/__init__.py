"""The model in PyTorch, written from the paper: a second opinion on the mathematics, and the peer that we time.

Tensors are [B, C, H, W], the labels of an image are not covered, and the flow has one scale.
"""
