"""The limits are the numbers of docs/protocol.md."""

import re
from pathlib import Path

from protocol import limits

DOCUMENT = Path(__file__).parents[3] / "docs" / "protocol.md"


def documented_limits() -> dict[str, int]:
    """Return the rows of the table "Limits": name in code → number."""
    rows = re.findall(
        r"^\| [^|]+ \| ([\d,]+)[^|]* \| `([A-Z_]+)` \|$", DOCUMENT.read_text(encoding="utf-8"), re.M
    )
    return {name: int(number.replace(",", "")) for number, name in rows}


def test_every_limit_is_documented_with_its_number() -> None:
    in_code = {name: value for name, value in vars(limits).items() if name.isupper()}

    assert documented_limits() == in_code


def test_two_pings_may_be_lost_before_the_idle_close() -> None:
    assert limits.IDLE_TIMEOUT_MS > 2 * limits.PING_PERIOD_MS


def test_integers_are_exact_in_javascript() -> None:
    assert float(limits.INTEGER_MAX) == limits.INTEGER_MAX
    assert float(limits.INTEGER_MAX + 2) != limits.INTEGER_MAX + 2
