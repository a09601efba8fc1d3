"""One file a command: its arguments, and all of it if it is small.

Nothing here may import diffusers before its command runs, or draw anything itself.
"""
