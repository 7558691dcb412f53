"""Every page of the dashboard at the widths of a phone, a tablet, a notebook and a large screen,
light and dark, with a full store, an empty one and hostile names: nothing sticks out, everything is
reached by keyboard, and every text can be read (WCAG 2.2 AA)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from dmarc_milter.core.policy.decide import Disposition
from dmarc_milter.core.policy.verdict import Deferral
from dmarc_milter.ledger.store.store import Store
from fakes.evaluations import evaluation
from fakes.stored import fill, week
from live.dashboard import (
    WIDTHS,
    Scheme,
    chromium,
    complaints,
    cut_off,
    headings,
    look,
    nameless,
    pale,
    served,
    small,
    sticks_out,
    unreachable,
)

pytestmark = pytest.mark.live
LONG = ".".join(["w" * 63] * 3 + ["x" * 40, "hostile-name", "example"])
"""A domain name of 253 characters."""
MARKUP = "<b onclick=alert(1)>" * 12
PAGES = (
    *("/?days=90", "/decisions?days=90", "/domains?days=90", "/impact?days=90", "/reports"),
    *("/health", "/nowhere"),
)


def fill_folder(folder: Path) -> None:
    """A week of mail, and hostile names in every field that a sender can fill."""
    store = Store.open(f"sqlite:///{folder}/reports.db")
    odd = evaluation(LONG, queue_id="Q" * 64, message_id="m" * 250)
    odd = replace(odd, verdict=replace(odd.verdict, decided_by=MARKUP))
    waits = replace(
        evaluation(LONG.replace("w", "v"), source_ip="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
        verdict=replace(
            odd.verdict, disposition=Disposition.NONE, deferral=Deferral("dns", f"_dmarc.{LONG}")
        ),
    )
    fill(folder / "spool.db", store, [*week(), odd, waits])
    store.destinations.suppress(f"reports@{LONG}", 2**40, MARKUP)
    with store.database.transaction() as transaction:
        transaction.run("UPDATE daily SET messages = messages * 10000019")
    store.close()


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A dashboard over a full store, one over none, and one that asks for a token."""
    full, empty, locked = (tmp_path_factory.mktemp(name) for name in ("full", "empty", "locked"))
    fill_folder(full)
    (locked / "token").write_text("0123456789abcdef")
    (locked / "token").chmod(0o600)
    with ExitStack() as stack:
        yield {
            "full": stack.enter_context(served(full)),
            "empty": stack.enter_context(served(empty)),
            "locked": stack.enter_context(served(locked, f'token_file = "{locked}/token"\n')),
        }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


def paths(browser: webdriver.Chrome, address: str) -> list[str]:
    """The pages of the navigation and one of each kind below them, of the hostile name where there
    is one."""
    found = [*PAGES, f"/domains/{LONG}?days=90"]
    for listing, below in (
        (f"/decisions?days=90&author_domain={LONG}", "/decisions/"),
        ("/decisions?days=90&author_domain=list.example", "/decisions/"),
        ("/reports", "/reports/"),
    ):
        browser.get(address + listing)
        links = browser.find_elements(By.CSS_SELECTOR, f"tbody a[href*='{below}']")
        found += [link.get_attribute("href").removeprefix(address) for link in links[:1]]
    return found


@pytest.mark.parametrize(
    ("width", "scheme"), [*((width, "light") for width in WIDTHS), (390, "dark"), (1280, "dark")]
)
def test_every_page_can_be_used_at_this_width(
    browser: webdriver.Chrome, addresses: dict[str, str], width: int, scheme: Scheme
) -> None:
    look(browser, width, scheme)
    full, empty, locked = (addresses[name] for name in ("full", "empty", "locked"))
    asked = [full + path for path in paths(browser, full)]
    assert len(asked) == len(PAGES) + 4
    asked += [*(empty + path for path in PAGES), f"{locked}/login"]
    complaints(browser)
    for page in asked:
        browser.get(page)
        browser.execute_script(  # type: ignore[no-untyped-call]
            "document.querySelectorAll('details').forEach(one => { one.open = true; })"
        )
        assert sticks_out(browser) <= 0, page
        assert unreachable(browser) == [], page
        assert nameless(browser) == [], page
        assert pale(browser) == [], page
        assert cut_off(browser) == [] or width > 390, page
        assert small(browser) == [] or width > 390, page
        assert headings(browser)[0] == 1, page
        assert headings(browser).count(1) == 1, page
    said = [line for line in complaints(browser) if "/nowhere" not in line]
    assert said == []


def test_the_order_of_headings_skips_no_level(
    browser: webdriver.Chrome, addresses: dict[str, str]
) -> None:
    for path in paths(browser, addresses["full"]):
        browser.get(addresses["full"] + path)
        levels = headings(browser)
        assert all(below <= above + 1 for above, below in pairwise(levels))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_tab_key_comes_to_every_control_and_each_shows_that_it_is_there(
    browser: webdriver.Chrome, addresses: dict[str, str], width: int
) -> None:
    """The list of decisions has all kinds: links, fields, lists, a button, a table that scrolls."""
    look(browser, width, "light")
    browser.get(addresses["full"] + "/decisions?days=90&author_domain=list.example")
    controls = browser.execute_script(  # type: ignore[no-untyped-call]
        "return [...document.querySelectorAll('a[href], button, input, select')].filter("
        "one => one.checkVisibility()).length"
    )
    seen = set()
    for _ in range(controls + 5):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        one = browser.switch_to.active_element
        if one.tag_name == "body":
            break
        seen.add(one.id)
        assert one.value_of_css_property("outline-style") == "solid", one.get_attribute("outerHTML")
    assert len(seen) >= controls


def test_a_decision_is_printed_for_its_sender(
    browser: webdriver.Chrome, addresses: dict[str, str]
) -> None:
    """On paper: the verdict, the chain, what would change it, the walk; nothing to click, and not
    the rule, which is no business of the sender's."""
    look(browser, 800, "dark")
    browser.get(addresses["full"] + "/decisions?days=90&disposition=refused")
    browser.get(browser.find_element(By.CSS_SELECTOR, "tbody a").get_attribute("href"))
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    shown = browser.execute_script(  # type: ignore[no-untyped-call]
        "return document.body.innerText + '|' + document.querySelector('.walk').innerText + '|'"
        " + document.querySelector('.walk').checkVisibility({contentVisibilityAuto: true})"
    )
    ground = browser.find_element(By.CSS_SELECTOR, ".box").value_of_css_property("background-color")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    for words in (
        "refused",
        "What was proven",
        "What would change it",
        "|TXT _dmarc.legit.example",
    ):
        assert words in shown
    for words in ("Health", "policy.rules", "Copy the rule", "Skip to"):
        assert words not in shown
    assert ground == "rgba(255, 255, 255, 1)"
