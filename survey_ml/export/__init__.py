"""Catalogues, regions, coverage maps and the release bundle."""
