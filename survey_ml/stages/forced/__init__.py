"""Photometry at given positions."""
