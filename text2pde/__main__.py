"""``python -m text2pde`` is the command ``text2pde``."""

import sys

from text2pde.cli import main

if __name__ == "__main__":
    sys.exit(main())
