"""An hour's race: what a user would pick instead of ours, an hour each on the same cores and images."""
