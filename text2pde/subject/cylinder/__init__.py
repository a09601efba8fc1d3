"""Flows past a cylinder in a channel."""
