"""One short module a paper: its headline experiment, and our figures beside those of the paper."""
