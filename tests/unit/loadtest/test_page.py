"""`loadtest/page.py`: the page says the verdict, needs nothing from elsewhere, and a browser finds no fault with it."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest.findings import Findings
from loadtest.page import PROMISES, render
from tests.support.chromium import NO_CHROMIUM, PROGRAM, a_page
from tests.unit.loadtest.a_result import a_result


def broken() -> Findings:
    findings = Findings()
    findings.add("I4 facts", "fact 3 <never> arrived", "s-v1")
    return findings


class _Tags(HTMLParser):
    """Checks that what is opened is closed, and collects addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value is not None]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing to close."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    ("change", "verdict", "css"),
    [
        ({}, "Pass · exit 0", "pass"),
        ({"findings": broken()}, "A promise was broken · exit 2", "violated"),
        ({"overrides": {"thresholds.reply_max_ms": "< 1"}}, "A threshold was missed · exit 3", "missed"),
        ({"late": 900}, "The result is invalid · exit 4", "saturated"),
    ],
)
def test_verdict_stands_on_top(change: dict[str, Any], verdict: str, css: str) -> None:
    page = render(a_result(**change))

    assert f'<section class="verdict {css}" id="verdict"><b>{verdict}</b>' in page
    assert page.index(verdict) < page.index("<h2>")
    assert "liveroom-loadtest run seckill --viewers 30 --seed 5" in page


@pytest.mark.parametrize("findings", [None, broken()])
def test_page_is_whole_and_asks_for_nothing(findings: Findings | None) -> None:
    page = render(a_result(findings=findings))
    tags = _Tags()
    tags.feed(page)

    assert tags.open == []
    assert tags.addresses == ["data:,"]
    assert not re.search(r"@import|url\(|https?://", page)
    assert "default-src 'none'" in page


def test_every_promise_is_listed_with_what_was_found() -> None:
    page = render(a_result(findings=broken()))

    for promise in PROMISES:
        assert f">{promise}<" in page
    assert "✗ broken, 1 finding(s)" in page
    assert "fact 3 &lt;never&gt; arrived" in page
    assert "s-v1" in page


def test_moments_errors_and_every_delay_are_drawn() -> None:
    page = render(a_result())

    for text in (
        "start of the sale",
        "killed the store",
        "seckill.claim sold_out",
        "Percentile spectrum",
        "Delivery of a comment",
        "Skew of the fan-out",
        "Processor",
        "Memory",
        "99.9 %",
    ):
        assert text in page


@pytest.mark.parametrize("subject", ["cut", "claim", "delivery"])
def test_line_stops_where_nothing_was_due(subject: str) -> None:
    together, apart = a_result(), a_result()
    second = together.timeline.delays["claim"][0]
    for result, moments in ((together, (0, 1, 2, 3)), (apart, (0, 1, 5, 6))):
        seconds = [msgspec.structs.replace(second, at_s=moment) for moment in moments]
        result.timeline.delays[subject] = seconds

    # Three lines of the subject's own chart and, but for cuts, the one of "Per second".
    more = render(apart).count('class="line"') - render(together).count('class="line"')
    assert more == (3 if subject == "cut" else 4)


@pytest.mark.skipif(PROGRAM is None, reason=NO_CHROMIUM)
@pytest.mark.parametrize("dark", [False, True])
async def test_browser_offline_opens_it_without_an_error(tmp_path: Path, dark: bool) -> None:
    path = tmp_path / "report.html"
    path.write_text(render(a_result(findings=broken())), encoding="utf-8")

    async with a_page(path.as_uri(), dark=dark) as page:
        charts = await page.value("document.querySelectorAll('figure.chart svg').length")
        background = await page.value("getComputedStyle(document.body).backgroundColor")
        wide = await page.value("document.documentElement.scrollWidth <= innerWidth")
        box = await page.value(
            "(() => { const box = document.querySelector('.plot').getBoundingClientRect();"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        await page.hover(*box)
        tip = await page.value("document.querySelector('.plot .tip').innerText")
        await page.value("document.querySelector('#theme').click()")
        switched = await page.value("getComputedStyle(document.body).backgroundColor")
        picture = await page.picture()

    assert page.errors == []
    assert page.requests == [path.as_uri()]
    assert charts >= 8
    assert wide
    assert "p99" in tip
    assert "ms" in tip
    dark_rgb, light_rgb = "rgb(15, 20, 25)", "rgb(246, 247, 249)"
    assert (background, switched) == ((dark_rgb, light_rgb) if dark else (light_rgb, dark_rgb))
    assert picture.startswith(b"\x89PNG")
