"""`dmarc-milter` as it is installed: `python -m bench.plain serve ...`.

The test environment holds HTTP libraries that dnspython imports where it finds them, at a third of
a start's processor time. No installation has them.
"""

from __future__ import annotations

import sys

import dns._features

dns._features.force("doh", False)

if __name__ == "__main__":
    from dmarc_milter.cli.main import main

    sys.exit(main())
