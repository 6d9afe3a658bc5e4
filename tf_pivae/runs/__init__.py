"""The files of a run: its folder, its facts, its checkpoints."""
