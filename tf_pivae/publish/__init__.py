"""A run as a folder of a few MB to hand on."""
