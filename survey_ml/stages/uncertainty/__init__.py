"""Uncertainties of the classes of sources."""
