"""`python -m oms_app …`"""

import sys

from oms_app.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
