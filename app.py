"""Starts the page from a checkout: `python app.py`, or a Hugging Face Space. Installed, the command is `oms-studio`."""

import sys

from oms_app.cli.page import arguments, main

__all__ = ["arguments", "main"]

if __name__ == "__main__":
    sys.exit(main())
