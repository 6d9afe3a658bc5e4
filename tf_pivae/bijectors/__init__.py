"""TFP bijectors on images [..., H, W, C]; the networks inside them are Keras layers that the caller holds."""
