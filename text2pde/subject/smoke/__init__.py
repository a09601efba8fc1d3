"""Smoke that rises in a closed box."""
