"""The metrics of section 5.1, of a run or of folders of images."""
