"""DMARC against a second reading of RFC 9989 4.10: its steps written down as they stand there, on
random trees with missing answers."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from dmarc_milter.core.dkim.result import DkimResult, DkimStatus
from dmarc_milter.core.dmarc.evaluate import DmarcOptions, evaluate
from dmarc_milter.core.mail.author import Author
from dmarc_milter.core.mail.domain import Domain
from dmarc_milter.core.spf.check import SpfResult, SpfStatus
from fakes.dns_zone import Zone
from fakes.suffixes import ICANN, ListedSuffixes

Tags = Mapping[str, str]
Tree = Mapping[str, Tags]
SUFFIXES = ListedSuffixes((*ICANN, "g.city.jp"))
"""As by `*.city.jp`: city.jp itself is no public suffix, but above one."""
POLICIES = ("none", "quarantine", "reject")
SPINE = "a.b.c.d.e.f.g.h.i.j"
OPEN: tuple[Tags, ...] = (
    {},
    {"p": "reject", "psd": "u"},
    {"p": "reject", "psd": "y"},
    {"p": "reject", "psd": "n"},
)
"""What a missing answer could have been; {} is no record."""

NAMES = st.builds(
    lambda first, length, tail: ".".join([*SPINE.split(".")[first : first + length], tail]),
    st.integers(0, 9),
    st.integers(0, 10),
    st.sampled_from(
        ["example.com", "co.uk", "x.co.uk", "other.example.com", "x.g.city.jp", "city.jp"]
    ),
)
TAGS = st.fixed_dictionaries(
    {"p": st.sampled_from([*POLICIES, "wrong"])},
    optional={
        "sp": st.sampled_from([*POLICIES, "wrong"]),
        "np": st.sampled_from(POLICIES),
        "psd": st.sampled_from(["y", "n", "u", "wrong"]),
        "aspf": st.sampled_from(["r", "s", "wrong"]),
        "adkim": st.sampled_from(["r", "s", "wrong"]),
        "rua": st.just("mailto:a@example.com"),
    },
)
MODES = ("aspf", "adkim", "adkim")
STATUSES = st.sampled_from(["pass", "fail", "temperror"])


def ancestors(name: str) -> list[str]:
    labels = name.split(".")
    return [".".join(labels[-count:]) for count in range(len(labels), 0, -1)]


def walk(start: str, tree: Tree) -> list[tuple[str, str]]:
    """4.10: (name, psd) of the records found, the longest name first."""
    found, name = [], start
    while True:
        if record := tree.get(name):
            psd = record.get("psd", "u")
            if psd not in ("y", "n"):
                psd = "y" if is_suffix(name, start) else "u"  # psl_guard
            found.append((name, psd))
            if psd != "u":
                return found
        labels = name.split(".")
        if len(labels) == 1:
            return found
        name = ".".join(labels[-7:] if len(labels) >= 8 else labels[1:])


def suffix_labels(start: str) -> int:
    """Of the longest public suffix above the name."""
    return max(
        (
            name.count(".") + 1
            for name in ancestors(start)[1:]
            if SUFFIXES.is_icann_suffix(Domain(name))
        ),
        default=0,
    )


def is_suffix(name: str, start: str) -> bool:
    """Whether it is a public suffix, or above one on the way from the start."""
    return SUFFIXES.is_icann_suffix(Domain(name)) or (
        name != start and name.count(".") < suffix_labels(start)
    )


def organization(start: str, tree: Tree) -> str:
    """4.10.2, rule by rule; but with psl_guard a registry's psd=y makes no organization of what the
    list knows as a public suffix, because the names below that are different people's
    (docs/design.md, Decisions)."""
    found = walk(start, tree)
    for name, psd in found:
        if psd == "n":
            return name
        if psd == "y" and name != start:
            return ".".join(start.split(".")[-max(name.count(".") + 1, suffix_labels(start)) - 1 :])
    return found[-1][0] if found else start


def policy_record(author: str, tree: Tree) -> str | None:
    """4.10.1: the name whose record is the policy's."""
    suffix = [name for name, psd in walk(author, tree) if psd == "y"]
    return next(
        (name for name in (author, organization(author, tree), *suffix) if tree.get(name)), None
    )


def expected(
    author: str, tree: Tree, identifiers: list[tuple[str, str, str]], *, exists: bool
) -> tuple[str, ...]:
    """dmarc=, and where a policy applies the policy and where it is from. `identifiers`: mode tag,
    domain, status."""
    name = policy_record(author, tree)
    if name is None:
        return ("none",)
    record = tree[name]
    valid = all(record.get(tag, "none") in POLICIES for tag in ("p", "sp", "np"))
    if not valid and "rua" not in record:
        return ("none",)
    below = record.get("sp", record["p"])
    policy = record["p"] if name == author else below if exists else record.get("np", below)
    aligned = {
        status
        for mode, domain, status in identifiers
        if domain == author
        or (record.get(mode) != "s" and organization(domain, tree) == organization(author, tree))
    }
    verdict = next((word for word in ("pass", "temperror") if word in aligned), "fail")
    return verdict, policy if valid else "none", name


def with_missing(
    author: str,
    tree: Tree,
    missing: list[str],
    identifiers: list[tuple[str, str, str]],
    *,
    exists: bool,
) -> str:
    """dmarc= where names have no answer: what all answers agree on; temperror where they do not, or
    the policy is not known."""
    tree = {name: tags for name, tags in tree.items() if name not in missing}
    suffixes = [
        name
        for name in missing
        if name != author and name in ancestors(author) and is_suffix(name, author)
    ]
    if suffixes and settled(author, tree, missing, suffixes):
        missing = [name for name in missing if name not in suffixes]
    words = set()
    found = set()
    for answers in product(OPEN, repeat=len(missing)):
        completed = {**tree, **dict(zip(missing, answers, strict=True))}
        words.add(expected(author, completed, identifiers, exists=exists)[0])
        found |= {name for name in missing if name in queried(author, completed)}
    if found and not tree.get(author):
        itself = any((domain, status) == (author, "pass") for _, domain, status in identifiers)
        return (
            "pass"
            if itself and expected(author, tree, identifiers, exists=exists) != ("none",)
            else "temperror"
        )
    return words.pop() if len(words) == 1 else "temperror"


def settled(author: str, tree: Tree, missing: list[str], suffixes: list[str]) -> bool:
    """Whether the organization is the same with and without a record at the failing public suffixes
    (docs/design.md, Decisions)."""
    others = [name for name in missing if name not in suffixes]
    for answers in product(OPEN, repeat=len(others)):
        known = {**tree, **dict(zip(others, answers, strict=True))}
        ends = set()
        for chosen in product((False, True), repeat=len(suffixes)):
            there = {name: {"psd": "y"} for name, yes in zip(suffixes, chosen, strict=True) if yes}
            ends.add(organization(author, {**known, **there}))
        if len(ends) > 1:
            return False
    return True


def queried(author: str, tree: Tree) -> list[str]:
    """The names of the author's walk, up to where it ends, and the organization's: below a psd=y it
    may be one that the walk leaves out."""
    labels = author.split(".")
    names = [author, *ancestors(".".join(labels[-7:] if len(labels) > 7 else labels[1:]))]
    ends = [name for name, psd in walk(author, tree) if psd != "u"]
    asked = names[: names.index(ends[0]) + 1] if ends else names
    return [*asked, organization(author, tree)]


def names_of(author: str, *others: str) -> list[str]:
    return sorted({above for name in (author, *others) for above in ancestors(name)})


@settings(max_examples=250, deadline=None)
@given(
    data=st.data(),
    author=NAMES,
    others=st.lists(NAMES, min_size=1, max_size=2),
    exists=st.booleans(),
)
def test_walks_policies_and_alignment_are_as_the_text_has_them(
    data: st.DataObject, author: str, others: list[str], exists: bool
) -> None:
    """RFC 9989 4.10 to 4.10.2, 4.4, 5.3.5, 5.3.6; docs/design.md, Decisions, on DNS failures."""
    related = st.sampled_from([*ancestors(author)[:-1], *others, f"z.{author}"])
    identifiers = data.draw(identifiers_of(related))
    names = names_of(author, *others, *(domain for _, domain, _ in identifiers))
    tree: Tree = data.draw(st.dictionaries(st.sampled_from(names), TAGS, max_size=6))
    missing = data.draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
    assert_as_the_text_has_it(author, tree, missing, identifiers, exists=exists)


@settings(max_examples=250, deadline=None)
@given(data=st.data(), length=st.integers(5, 8), tail=st.sampled_from(["example.com", "x.co.uk"]))
def test_around_the_jump_of_a_long_walk_it_is_as_the_text_has_it(
    data: st.DataObject, length: int, tail: str
) -> None:
    """RFC 9989 4.10 step 4: a name of 8 labels or more is asked for, then its 7 right-most labels.
    The organization may lie in between, below a registry."""
    author = ".".join([*SPINE.split(".")[-length:], tail])
    labels = author.split(".")
    near = [author, *(".".join(labels[-count:]) for count in (9, 8, 7, 6) if count < len(labels))]
    registry = ".".join(labels[-7:])
    tree = data.draw(st.dictionaries(st.sampled_from(near), TAGS, max_size=3))
    tree[registry] = {"p": data.draw(st.sampled_from(POLICIES)), "psd": "y"}
    missing = data.draw(st.lists(st.sampled_from(near), max_size=2, unique=True))
    identifiers = data.draw(identifiers_of(st.sampled_from([*near, f"z.{author}"])))
    assert_as_the_text_has_it(author, tree, missing, identifiers, exists=data.draw(st.booleans()))


def identifiers_of(
    domains: st.SearchStrategy[str],
) -> st.SearchStrategy[list[tuple[str, str, str]]]:
    """(mode tag, domain, status) of SPF and two signatures."""
    return st.tuples(*(st.tuples(st.just(m), domains, STATUSES) for m in MODES)).map(list)


def assert_as_the_text_has_it(
    author: str,
    tree: Tree,
    missing: list[str],
    identifiers: list[tuple[str, str, str]],
    *,
    exists: bool,
) -> None:
    zone = Zone(failing=[f"_dmarc.{name}" for name in missing])
    zone.add(author if exists else "somewhere.example", "A", "192.0.2.1")
    for name, tags in tree.items():
        zone.add(
            f"_dmarc.{name}",
            "TXT",
            "; ".join(["v=DMARC1", *(f"{tag}={value}" for tag, value in tags.items())]),
        )
    exists = exists or any(
        name == author or name.endswith(f".{author}") for name in tree
    )  # an empty non-terminal
    (_, sender, spf), *signers = identifiers
    found = evaluate(
        Author(Domain(author)),
        SpfResult(SpfStatus(spf), Domain(sender)),
        tuple(
            DkimResult(DkimStatus(status), Domain(domain), "sel") for _, domain, status in signers
        ),
        zone,
        DmarcOptions(),
        SUFFIXES,
    )
    if missing:
        assert found.status == with_missing(author, tree, missing, identifiers, exists=exists)
        return
    outcome = found.outcome
    assert outcome is not None
    applied = (
        (outcome.policy.value, outcome.published.policy_domain.name) if outcome.published else ()
    )
    assert (found.status.value, *applied) == expected(author, tree, identifiers, exists=exists)
