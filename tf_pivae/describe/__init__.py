"""What a configuration builds: blocks, weights, arithmetic, memory."""
