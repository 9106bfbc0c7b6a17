"""Source extraction: background, islands, components, sources."""
