"""A GPU's day: `python -m benchmarks.gpu` measures on a GPU what no processor can show, and writes docs/gpu.md."""
