"""The TF_CONFIG of a worker, from what its scheduler says."""
