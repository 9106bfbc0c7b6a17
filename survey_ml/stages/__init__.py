"""The built-in stages, one folder each."""
