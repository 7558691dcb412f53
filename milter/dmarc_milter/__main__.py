"""`python -m dmarc_milter` is `dmarc-milter`."""

import sys

from dmarc_milter.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
