"""gin files as data: read, compared with the annotations of what they configure, refused where they would run code."""

from tf_pivae.configuration.messages import text
from tf_pivae.configuration.parsing import is_file, parse, search_paths
from tf_pivae.configuration.snapshot import Snapshot, of_run, of_text, preserved

__all__ = ["Snapshot", "is_file", "of_run", "of_text", "parse", "preserved", "search_paths", "text"]
