"""Splits side by side, with intervals."""
