"""Keras layers: weight-normalised and masked convolutions, running moments."""
