"""Measurements at full size: each module prints its figures, its seeds and whether its bar is met."""
