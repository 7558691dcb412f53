"""python -m readers [--write]: the table of readers and forms; --write puts it into
docs/reference/reports.md."""

from __future__ import annotations

import sys

from live.place import REPOSITORY
from readers.matrix import all_tried, table

PAGE = REPOSITORY / "docs" / "reference" / "reports.md"
BEGIN, END = "<!-- readers: made by `make report-readers` -->\n", "<!-- end -->\n"


def main() -> int:
    made = table(all_tried())
    print(made)
    if "--write" in sys.argv[1:]:
        text = PAGE.read_text()
        before, _, rest = text.partition(BEGIN)
        PAGE.write_text(before + BEGIN + made + END + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
