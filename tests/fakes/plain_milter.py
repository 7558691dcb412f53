"""A milter on stock pymilter, without any of our fences: python -m fakes.plain_milter PORT. It
tells what it saw in X-Seen."""

from __future__ import annotations

import sys

import Milter


class Plain(Milter.Base):  # type: ignore[misc]
    """Notes what reaches Python."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def header(self, name: str, value: str) -> int:
        self.seen.append(name)
        return Milter.CONTINUE

    def eom(self) -> int:
        for text in ("100% sure", "two\r\nlines"):
            try:
                self.setreply("550", "5.7.1", text)
                self.seen.append("taken")
            except (ValueError, Milter.milter.error):
                self.seen.append("refused")
        if "X-Raise" in self.seen:
            raise RuntimeError("a fault of the callback")
        self.addheader("X-Seen", " ".join(self.seen))
        return Milter.CONTINUE


def main() -> None:
    Milter.factory = Plain
    Milter.set_flags(Milter.ADDHDRS)
    Milter.runmilter("plain", f"inet:{sys.argv[1]}@127.0.0.1", 240)


if __name__ == "__main__":
    main()
