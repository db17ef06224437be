"""Roots in the memory of machines."""
