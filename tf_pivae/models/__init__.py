"""The joint model, its hierarchical VAE and the critics."""
