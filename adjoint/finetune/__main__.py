"""``python -m adjoint.finetune`` is the command ``adjoint finetune``."""

import sys

from adjoint.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))
