"""Writes a SavedModel, with its warm-up requests and its model card."""
