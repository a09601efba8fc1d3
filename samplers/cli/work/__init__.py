"""What a command does, in a file of the command's name: from parsed arguments to an exit code.

Nothing here may define arguments, or compute what the library has no function for.
"""
