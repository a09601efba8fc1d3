"""``python -m samplers`` is the command ``samplers``."""

import sys

from samplers.cli import main

if __name__ == "__main__":
    sys.exit(main())
