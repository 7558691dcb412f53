"""Who is responsible: packaging/owner.toml, and the places where it is shown.

python tools/owner.py say           one line if something is not yet set
python tools/owner.py get KEY       the value, or nothing
python tools/owner.py write [TREE]  puts it into SECURITY.md, pyproject.toml and the Containerfile
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PERSON = r"[^<>\"\\|&\n]+ <[^@<>\s\"\\|&]+@[^@<>\s\"\\|&]+>"
PAGE = r"https://[^\s<>\"\\|&]+"
FORMS = {
    "maintainer": (PERSON, '"Name <address@example.org>"'),
    "security": (rf"[^@<>\s\"\\|&]+@[^@<>\s\"\\|&]+|{PAGE}", "an address, or a https:// page"),
    "home": (PAGE, "a https:// page"),
}
NOBODY = "the maintainers (address: not yet set in packaging/owner.toml)"


def owner(tree: Path) -> dict[str, str]:
    """Every key; "" for what is not yet set. Raises SystemExit with one line."""
    file = tree / "packaging/owner.toml"
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"owner: {file}: {error}") from None
    if found.keys() != FORMS.keys():
        raise SystemExit(f"owner: {file}: the keys are {', '.join(FORMS)}")
    for key, (form, allowed) in FORMS.items():
        value = found[key]
        if value != "" and not (isinstance(value, str) and re.fullmatch(form, value)):
            raise SystemExit(f"owner: {file}: {key} must be {allowed}, or empty")
    return found


def unset(who: dict[str, str]) -> str:
    """One line, empty when all is set."""
    missing = ", ".join(key for key, value in who.items() if not value)
    return f"owner: not yet set in packaging/owner.toml: {missing}" if missing else ""


def security(text: str, who: dict[str, str]) -> str:
    """SECURITY.md with the contact."""
    contact = who["security"] and f"<{who['security']}>"
    return re.sub(
        r"Please write to \S(.*?) privately",
        lambda _: f"Please write to {contact or NOBODY} privately",
        text,
        count=1,
    )


def pyproject(text: str, who: dict[str, str]) -> str:
    """pyproject.toml with maintainers and the project's page, behind `license-files`."""
    text = re.sub(r"^(?:maintainers|urls) = .*\n", "", text, flags=re.MULTILINE)
    lines = ""
    if who["maintainer"]:
        name, _, address = who["maintainer"].rstrip(">").rpartition(" <")
        lines += f'maintainers = [{{ name = "{name}", email = "{address}" }}]\n'
    if who["home"]:
        lines += f'urls = {{ Homepage = "{who["home"]}" }}\n'
    return re.sub(r"^license-files = .*\n", lambda found: found[0] + lines, text, flags=re.M)


def containerfile(text: str, who: dict[str, str]) -> str:
    """The Containerfile with labels for both, before `ENV PATH`."""
    text = re.sub(r"^LABEL org\.opencontainers\.image\.(?:authors|url)=.*\n", "", text, flags=re.M)
    labels = {"authors": who["maintainer"], "url": who["home"]}
    lines = "".join(
        f'LABEL org.opencontainers.image.{key}="{value}"\n'
        for key, value in labels.items()
        if value
    )
    return re.sub(r"^ENV PATH=", lambda found: lines + found[0], text, flags=re.M)


SHOWN = {"SECURITY.md": security, "pyproject.toml": pyproject, "Containerfile": containerfile}
"""Each file of the tree, and what puts the owner into its text."""


def write(tree: Path) -> None:
    """All of them; those that say it already are left alone."""
    who = owner(tree)
    for name, put in SHOWN.items():
        file = tree / name
        before = file.read_text(encoding="utf-8")
        after = put(before, who)
        if after != before:
            file.write_text(after, encoding="utf-8")


def main(words: list[str]) -> int:
    match words:
        case ["say"]:
            line = unset(owner(ROOT))
            if line:
                print(line)
        case ["get", key] if key in FORMS:
            print(owner(ROOT)[key])
        case ["write"]:
            write(ROOT)
        case ["write", tree]:
            write(Path(tree))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
