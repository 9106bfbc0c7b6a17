"""The built-in sections of the report, one function each."""
