"""`python -m dmarc_milter` is `dmarc-milter`.

Ctrl-C ends it at once, without a traceback, while its modules are imported: nothing is held then
that could be lost. A command that runs is interrupted in the usual way (cli/interrupts.py).
"""

import gc
import sys

from dmarc_milter.cli.interrupts import leave_at_once
from dmarc_milter.cli.leave import leave


def main() -> int:
    """The console script."""
    leave_at_once()
    gc.disable()  # what is imported stays: to look through it again and again finds nothing
    from dmarc_milter.cli.main import main as command_line

    try:
        code = command_line()
    finally:
        leave_at_once()
    leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
