"""A self-contained page about one run or several: gathered into plain dataclasses, then rendered."""
