"""How fast the package is beside what a user would pick instead; `python -m benchmarks.run` writes the report."""
