"""Data of labelled images, in the formats of the field; one file a format."""
