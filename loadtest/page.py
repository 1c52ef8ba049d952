"""
The result as a page: `report.html`.

Decides what a person sees of a result and in which order: the verdict and what it means, the few figures that matter,
the run over time, the distribution of delays, the machines, every promise with what was found, and how to repeat it.
One file without anything from elsewhere, so that it opens from a disk, in a mail or years later. Judges nothing and
measures nothing: all of it stands in `summary.json`.

Pure: a result in, text out. The drawing is done by `charts.py`; style and script lie in `web/`.
"""

import html
import math
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from loadtest import latency
from loadtest.charts import Chart, Mark, Series, figure, mebibytes, milliseconds, plain
from loadtest.report import Result
from loadtest.timeline import EXPECTED_CODES

WEB_DIR: Final = Path(__file__).parent / "web"
VIOLATIONS_SHOWN_MAX: Final = 60
#: Codes with a colour of their own; the rest share one.
CODES_SHOWN_MAX: Final = 6
HALF: Final = 512
#: A second without anything due interrupts a line of seconds.
GAP_S: Final = 1.5
_MIB: Final = 1 << 20

LABELS: Final = {
    "delivery": "Delivery of a comment",
    "fact": "Fact, after its first viewer",
    "join": "Join",
    "resume": "Return with resume",
    "claim": "Claim, any answer",
    "grab": "Grab, any answer",
    "cut": "Claim or grab after a cut",
    "reply": "Reply to anything else",
    "lag": "Generator's own lag",
}
_COLOURS: Final = {
    "delivery": "c1",
    "fact": "c4",
    "join": "c2",
    "resume": "c9",
    "claim": "c3",
    "grab": "c5",
    "cut": "c7",
    "reply": "c8",
    "lag": "c6",
}

#: Verdict by exit code: class, headline, what it means.
VERDICTS: Final = {
    0: ("pass", "Pass", "Every promise was kept, every threshold held, and the generator kept up."),
    2: (
        "violated",
        "A promise was broken",
        "The oracle found something that the server must never do, however busy it is. It is listed here.",
    ),
    3: (
        "missed",
        "A threshold was missed",
        "Every promise was kept, but not within the bounds of the scenario.",
    ),
    4: (
        "saturated",
        "The result is invalid",
        "The generator could not keep to its plan, so the figures are about it and not about the server.",
    ),
}

#: Invariant → what it promises.
PROMISES: Final = {
    "I1 stock": "No unit sold twice; every acknowledged order exists, every order is somebody's; none is early.",
    "I2 cents": "Granted, left and refunded are the total, to the cent; one share a viewer, none below the least.",
    "I3 order": "Facts come in one order without gaps, and everybody is told the same.",
    "I4 facts": "Every viewer gets every fact once, or a snapshot that covers it; what was left out was announced.",
    "I5 likes": "The total never falls, and ends at the acknowledged sum.",
    "I6 board": "The share board is what the records of arrivals say.",
    "I7 one at a time": "There is an order of single claims that explains every answer.",
    "I8 tenants": "Nothing of one tenant reaches another's viewers.",
    "wire": "Frames follow the protocol, and every command on a standing connection is answered.",
}


def render(result: Result) -> str:
    """Return the page of a result."""
    template = string.Template((WEB_DIR / "report.html").read_text(encoding="utf-8"))
    kind, headline, _ = VERDICTS[result.exit_code]
    scenario, counts = result.scenario, result.counts
    subtitle = (
        f"{counts['viewers']:,} viewers · {result.seconds:.0f} s · seed {result.seed} · "
        f"plan {result.plan} · {result.target} · {result.started_at}"
    )
    return template.substitute(
        title=_text(f"{headline}: {scenario['name']}, seed {result.seed}"),
        style=(WEB_DIR / "report.css").read_text(encoding="utf-8"),
        script=(WEB_DIR / "report.js").read_text(encoding="utf-8"),
        name=_text(f"Load test: {scenario['name']}"),
        subtitle=_text(subtitle),
        verdict=_verdict(result, kind, headline),
        tiles=_tiles(result),
        over_time=_over_time(result),
        distribution=_distribution(result),
        machines=_machines(result),
        promises=_promises(result),
        thresholds=_thresholds(result),
        delays=_delays(result),
        campaigns=_campaigns(result),
        facts=_facts(result),
        footer=_text(
            "All delays count from the moment at which something was due, not from the moment at which it was sent: "
            "a server that stands still shows it here."
        ),
    )


def _text(value: object) -> str:
    return html.escape(str(value), quote=True)


# --- head -----------------------------------------------------------------------------------------------------


def _verdict(result: Result, kind: str, headline: str) -> str:
    meaning = VERDICTS[result.exit_code][2]
    reasons = ""
    if result.exit_code in (3, 4):
        reasons = "<ul>" + "".join(f"<li>{_text(reason)}</li>" for reason in result.reasons) + "</ul>"
    elif result.exit_code == 2:
        named = Counter(violation["invariant"] for violation in result.violations)
        listed = (f"<li>{_text(name)}: {count} different</li>" for name, count in named.items())
        reasons = "<ul>" + "".join(listed) + "</ul>"
    replay = ""
    if result.replay:
        replay = (
            f'<div class="replay"><code>{_text(result.replay)}</code>'
            '<button class="copy" type="button">copy</button></div>'
        )
    return (
        f'<section class="verdict {kind}" id="verdict"><b>{_text(headline)} · exit {result.exit_code}</b>'
        f"<p>{_text(meaning)}</p>{reasons}{replay}</section>"
    )


def _tiles(result: Result) -> str:
    counts, figures, generator = result.counts, result.latency, result.generator

    def delay(subject: str) -> tuple[str, str]:
        values = figures[subject]
        if not values["count"]:
            return "–", "nothing measured"
        return milliseconds(values["p99_ms"]), f"half within {milliseconds(values['p50_ms'])}"

    tiles = [
        ("Viewers", f"{counts['viewers']:,}", f"{counts['viewers_checked']:,} checked frame by frame"),
        ("Delivery, p99", *delay("delivery")),
        ("Join, p99", *delay("join")),
    ]
    for subject, label in (("claim", "Claim, p99"), ("grab", "Grab, p99")):
        if figures[subject]["count"]:
            tiles.append((label, *delay(subject)))
    tiles += [
        (
            "Deliveries",
            _short(counts["comments_delivered"]),
            f"{counts['comments_accepted']:,} comments, {counts['comments_thinned']:,} thinned",
        ),
        ("Facts read", _short(counts["facts_delivered"]), f"{counts['facts']:,} facts in the room"),
        (
            "Generator late",
            f"{100 * generator['late_share']:.2g} %",
            f"of its steps; busiest process {generator['cpu_share_max']:.0%} of a core",
        ),
    ]
    return "".join(
        f'<div class="tile"><span>{_text(label)}</span><b>{_text(value)}</b><small>{_text(note)}</small></div>'
        for label, value, note in tiles
    )


def _short(count: int) -> str:
    for size, letter in ((1_000_000, "M"), (10_000, "k")):
        if count >= size:
            return f"{count / (1000 if letter == 'k' else size):.3g} {letter}"
    return f"{count:,}"


# --- charts ---------------------------------------------------------------------------------------------------


def _marks(result: Result, *, named: bool) -> list[Mark]:
    """Return the moments of the run with their names, for the widest chart; else only what was done to the server."""
    return [
        Mark(moment.at_s, moment.name if named else "", moment.kind)
        for moment in result.timeline.moments
        if named or moment.kind == "fault"
    ]


def _x_max(result: Result) -> float:
    return float(max(1, result.timeline.seconds))


def _latency_chart(result: Result, subject: str, hint: str, *, wide: bool) -> str:
    seconds = result.timeline.delays.get(subject, [])
    if not seconds:
        return ""
    # Facts are rare: their seconds are far apart by nature.
    gap = math.inf if subject == "fact" else GAP_S
    return figure(
        Chart(
            title=LABELS[subject],
            hint=hint,
            series=[
                Series("slowest", "c3", [(second.at_s, second.max_ms) for second in seconds], gap=gap),
                Series("p99", "c2", [(second.at_s, second.p99_ms) for second in seconds], gap=gap),
                Series("p50", "c1", [(second.at_s, second.p50_ms) for second in seconds], gap=gap),
            ],
            x_max=_x_max(result),
            y_format=milliseconds,
            log=True,
            width=1040 if wide else HALF,
            height=300 if wide else 230,
            marks=_marks(result, named=wide),
        )
    )


def _over_time(result: Result) -> str:
    hints = {
        "join": "From the moment at which a viewer was due to the accepted join.",
        "resume": "From the moment at which a viewer was due back to the accepted join.",
        "claim": "From the moment at which the finger was due to any definite answer.",
        "grab": "From the moment at which the finger was due to any definite answer.",
        "cut": "Connections cut on purpose right after asking: until the answer after their return.",
        "reply": "Comments, likes and console commands, until their reply.",
    }
    parts = [
        _latency_chart(
            result,
            "delivery",
            "From the moment at which a comment was due to every viewer's reading of it, by the second it was due.",
            wide=True,
        ),
        *(_latency_chart(result, subject, hint, wide=False) for subject, hint in hints.items()),
        _latency_chart(
            result,
            "fact",
            "Skew of the fan-out: how much later than the first viewer the others read a fact.",
            wide=False,
        ),
        _rates(result),
        _errors(result),
        _viewers(result),
        _stock(result),
    ]
    return "".join(parts)


def _rates(result: Result) -> str:
    line = result.timeline
    series = [
        Series(
            "comment deliveries",
            "c1",
            [(s.at_s, float(s.count)) for s in line.delays.get("delivery", [])],
            gap=GAP_S,
        )
    ]
    asked = {"claim": "c3", "grab": "c5", "reply": "c8", "join": "c2"}
    for subject, colour in asked.items():
        seconds = line.delays.get(subject, [])
        if seconds:
            points = [(s.at_s, float(s.count)) for s in seconds]
            series.append(Series(f"{subject} answers", colour, points, gap=GAP_S))
    return figure(
        Chart(
            title="Per second",
            hint="Deliveries and answers, by the second in which they were due.",
            series=series,
            x_max=_x_max(result),
            y_format=plain,
            width=HALF,
            height=230,
            log=True,
            y_floor=1.0,
            marks=_marks(result, named=False),
        )
    )


def _viewers(result: Result) -> str:
    pulses = result.timeline.pulses
    if not pulses:
        return ""
    return figure(
        Chart(
            title="Viewers in the room",
            hint="Connections that have joined, as the generator counts them.",
            series=[Series("joined", "c4", [(pulse.at_s, float(pulse.joined)) for pulse in pulses], "area")],
            x_max=max(_x_max(result), pulses[-1].at_s),
            y_format=plain,
            width=HALF,
            height=210,
            marks=_marks(result, named=False),
        )
    )


def _stock(result: Result) -> str:
    left = [
        (pulse.at_s, float(pulse.stock_left))
        for pulse in result.timeline.pulses
        if pulse.stock_left is not None
    ]
    if not left:
        return ""
    return figure(
        Chart(
            title="Units left",
            hint="Of all sales, as the gauge last said.",
            series=[Series("left", "c3", left, "area")],
            x_max=max(_x_max(result), left[-1][0]),
            y_format=plain,
            width=HALF,
            height=210,
            marks=_marks(result, named=False),
        )
    )


def _errors(result: Result) -> str:
    refused = result.timeline.refused
    totals = {name: sum(seconds.values()) for name, seconds in refused.items()}
    if not totals:
        return (
            '<figure class="chart-less half"><figcaption><h3>Refusals and errors</h3>'
            '<p class="yes">None: every command was answered with ok.</p></figcaption></figure>'
        )
    ranked = sorted(totals, key=lambda name: -totals[name])
    colours = ("c3", "c2", "c5", "c7", "c8", "c1")
    series = [
        Series(name, colour, [(second, float(count)) for second, count in refused[name].items()], "bars")
        for name, colour in zip(ranked[:CODES_SHOWN_MAX], colours, strict=False)
    ]
    rest: Counter[int] = Counter()
    for name in ranked[CODES_SHOWN_MAX:]:
        rest.update(refused[name])
    if rest:
        points = [(second, float(count)) for second, count in sorted(rest.items())]
        series.append(Series("others", "c6", points, "bars"))
    heights: Counter[float] = Counter()
    for entry in series:
        heights.update(dict(entry.points))
    wrong = sum(count for name, count in totals.items() if name.rpartition(" ")[2] not in EXPECTED_CODES)
    return figure(
        Chart(
            title="Refusals and errors",
            hint=f"Answers that were not ok, per second. {wrong:,} of {sum(totals.values()):,} are no answer "
            "that a busy sale gives by design.",
            series=series,
            x_max=_x_max(result) + 1,
            y_format=plain,
            y_least=max(heights.values()),
            width=HALF,
            height=230,
        )
    )


def _distribution(result: Result) -> str:
    spectra = {name: points for name, points in result.spectrum.items() if len(points) > 1}
    if not spectra:
        return '<p class="note">Nothing was measured.</p>'
    # The axis counts nines: one more for every tenth of the rest. The slowest of all stands at the end of its line.
    nines = {
        name: [(_nines(percentile), value) for percentile, value in points if percentile < 100]
        for name, points in spectra.items()
    }
    far = max(x for points in nines.values() for x, _ in points)
    labels = {
        0: "0 %",
        round(_nines(50), 6): "50 %",
        1: "90 %",
        2: "99 %",
        3: "99.9 %",
        4: "99.99 %",
        5: "99.999 %",
        6: "99.9999 %",
        7: "99.99999 %",
    }
    longest = max(spectra, key=lambda name: len(spectra[name]))
    return figure(
        Chart(
            title="Percentile spectrum",
            hint="How slow it gets, the rarer it is: each step to the right is ten times rarer. "
            "A line that stays flat is a service that keeps its word.",
            series=[
                Series(LABELS.get(name, name), _COLOURS.get(name, "c6"), points)
                for name, points in nines.items()
            ],
            x_max=max(1.0, far),
            y_format=milliseconds,
            log=True,
            height=340,
            x_ticks=list(labels.items()),
            x_labels=[f"{percentile:.6g} %" for percentile, _ in spectra[longest] if percentile < 100],
        )
    )


def _nines(percentile: float) -> float:
    """Return how many nines a percentile has: 90 has one, 99 two."""
    return abs(math.log10(1 - percentile / 100))


def _machines(result: Result) -> str:
    line = result.timeline
    groups = {"server": "c1", "store": "c3", "generator": "c2"}
    cores, memory = [], []
    for group, colour in groups.items():
        samples = [usage for usage in line.usage if usage.group == group]
        if samples:
            cores.append(Series(group, colour, [(usage.at_s, usage.cores) for usage in samples]))
            memory.append(Series(group, colour, [(usage.at_s, usage.rss_bytes / _MIB) for usage in samples]))
    x_max = max([_x_max(result), *(usage.at_s for usage in line.usage)])
    parts = []
    if cores:
        have = result.machine["cores"]
        known = (
            ""
            if any(series.name == "server" for series in cores)
            else " The server is elsewhere: no figures."
        )
        parts += [
            figure(
                Chart(
                    title="Processor",
                    hint=f"Cores' worth of time; this machine has {have}.{known}",
                    series=cores,
                    x_max=x_max,
                    y_format=plain,
                    y_least=0.5,
                    width=HALF,
                    height=230,
                    marks=_marks(result, named=False),
                )
            ),
            figure(
                Chart(
                    title="Memory",
                    hint="Resident memory of all processes of each kind.",
                    series=memory,
                    x_max=x_max,
                    y_format=mebibytes,
                    width=HALF,
                    height=230,
                )
            ),
        ]
    if line.pulses:
        lag = [(pulse.at_s, max(pulse.lag_ms, 0.01)) for pulse in line.pulses]
        bound = result.scenario["honesty"]["late_ms"]
        parts.append(
            figure(
                Chart(
                    title="The generator's own lag",
                    hint=f"How late the latest step of each second was; over {bound:g} ms it counts as late.",
                    series=[Series("latest step", "c6", lag)],
                    x_max=x_max,
                    y_format=milliseconds,
                    log=True,
                    width=1040,
                    height=200,
                    y_least=10.0,
                )
            )
        )
    return "".join(parts) or '<p class="note">Nothing was sampled.</p>'


# --- tables ---------------------------------------------------------------------------------------------------


def _table(
    head: Sequence[str], rows: Iterable[Sequence[tuple[str, str] | str]], numeric: Sequence[int] = ()
) -> str:
    """Return a table. A cell is its text, or its text and class; `numeric` are the columns aligned to the right."""
    cells = "".join(
        f"<th{' class=n' if place in numeric else ''}>{_text(name)}</th>" for place, name in enumerate(head)
    )
    body = []
    for row in rows:
        line = []
        for place, cell in enumerate(row):
            text, style = cell if isinstance(cell, tuple) else (cell, "n" if place in numeric else "")
            line.append(f"<td{f' class={chr(34)}{style}{chr(34)}' if style else ''}>{_text(text)}</td>")
        body.append(f"<tr>{''.join(line)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _promises(result: Result) -> str:
    counts, campaigns = result.counts, result.campaigns
    broken = Counter(violation["invariant"] for violation in result.violations)
    checked = {
        "I1 stock": _summed(campaigns["sales"], "claims", "claims on {n} sale(s)"),
        "I2 cents": _summed(campaigns["packets"], "grabs", "grabs of {n} packet(s)"),
        "I3 order": f"{counts['facts_delivered']:,} facts and {counts['comments_delivered']:,} comments read",
        "I4 facts": f"{counts['viewers_checked']:,} viewers, {counts['snapshots_checked']:,} snapshots, "
        f"{counts['views_checked']:,} full views",
        "I5 likes": f"{counts['likes_acknowledged']:,} likes acknowledged, {counts['likes_final']:,} in the room",
        "I6 board": f"{campaigns['board']['arrivals']:,} arrivals" if campaigns["board"]["arrivals"] else "",
        "I7 one at a time": _searched(campaigns),
        "I8 tenants": (
            f"{counts['neighbours_checked']} viewers of another tenant beside the run"
            if counts["neighbours_checked"]
            else "names in every frame; no second tenant was at hand"
        ),
        "wire": f"{counts['frames_read']:,} frames, {counts['frames_distinct']:,} of them distinct",
    }
    rows = []
    for name, promise in PROMISES.items():
        if broken[name]:
            state = (f"✗ broken, {broken[name]} finding(s)", "no")
        elif checked[name]:
            state = ("✓ kept", "yes")
        else:
            state = ("not exercised", "idle")
        rows.append([(name, "id"), (promise, ""), (checked[name], "soft"), state])
    parts = [_table(("Promise", "What it says", "Checked", "Found"), rows)]
    if result.violations:
        shown = result.violations[:VIOLATIONS_SHOWN_MAX]
        lines = [
            [
                (violation["invariant"], "id"),
                (violation["message"], "wrap"),
                (f"{violation['viewers']:,}" if violation["viewers"] else "–", "n"),
                (", ".join(violation["named"]) or "not about a viewer", "wrap soft"),
            ]
            for violation in shown
        ]
        parts.append("<h2>Violations</h2>")
        parts.append(_table(("Promise", "What was found", "Viewers", "The first of them"), lines, (2,)))
        more = len(result.violations) - len(shown)
        parts.append(
            f'<p class="note">{result.violations_total:,} in all'
            f"{f'; {more} more kinds in summary.json' if more else ''}. "
            f"To judge the recording again: <code>liveroom-loadtest judge FOLDER</code>. "
            f"To play the same plan again: <code>{_text(result.replay)}</code></p>"
        )
    return "".join(parts)


def _summed(tallies: dict[str, Any], field: str, text: str) -> str:
    if not tallies:
        return ""
    return f"{sum(tally[field] for tally in tallies.values()):,} {text.format(n=len(tallies))}"


def _searched(campaigns: dict[str, Any]) -> str:
    tallies = [*campaigns["sales"].values(), *campaigns["packets"].values()]
    if not tallies:
        return ""
    searched = sum(tally["searched"] for tally in tallies)
    return f"{len(tallies)} by counting, {searched} also searched exhaustively"


def _thresholds(result: Result) -> str:
    if not result.thresholds:
        return ""
    rows = [
        [
            (check.threshold, "id"),
            (f"{check.value:,.6g}", "n"),
            ("✓ held", "yes") if check.holds else ("✗ missed", "no"),
        ]
        for check in result.thresholds
    ]
    return "<h2>Thresholds</h2>" + _table(("Threshold", "Measured", ""), rows, (1,))


def _delays(result: Result) -> str:
    names = (*latency.PERCENTILES, "max")
    rows = []
    for subject, label in LABELS.items():
        figures = result.latency.get(subject, {"count": 0})
        if figures["count"]:
            values = [(milliseconds(figures[f"{name}_ms"]), "n") for name in names]
            rows.append([(label, "id"), (f"{int(figures['count']):,}", "n"), *values])
    heads = ("From the moment it was due", "Count", "p50", "p90", "p99", "p99.9", "Slowest")
    return _table(heads, rows, range(1, 7))


def _campaigns(result: Result) -> str:
    parts = []
    sales, packets = result.campaigns["sales"], result.campaigns["packets"]
    if sales:
        rows = [
            [
                (name, "id"),
                *(
                    (f"{tally[field]:,}", "n")
                    for field in ("stock", "left", "held", "sold", "claims", "early")
                ),
                (_answers(tally["answers"]), "soft"),
            ]
            for name, tally in sales.items()
        ]
        heads = ("Sale", "Stock", "Left", "Held", "Sold", "Claims", "Won early", "Answers")
        parts.append("<h2>Sales</h2>" + _table(heads, rows, range(1, 7)))
    if packets:
        fields = (
            "total_cents",
            "granted_cents",
            "left_cents",
            "refunded_cents",
            "shares",
            "winners",
            "grabs",
        )
        rows = [
            [
                (name, "id"),
                *((f"{tally[field]:,}", "n") for field in fields),
                (_answers(tally["answers"]), "soft"),
            ]
            for name, tally in packets.items()
        ]
        columns = ("Packet", "Cents", "Granted", "Left", "Refunded", "Shares", "Winners", "Grabs", "Answers")
        parts.append("<h2>Red packets</h2>" + _table(columns, rows, range(1, 8)))
    return "".join(parts)


def _answers(answers: dict[str, int]) -> str:
    return ", ".join(f"{name} × {count:,}" for name, count in answers.items())


def _facts(result: Result) -> str:
    machine = result.machine
    memory = mebibytes(machine["memory_bytes"] / _MIB)
    faults = ", ".join(f"{name} × {count:,}" for name, count in result.faults.items()) or "none"
    rows = [
        ("Command", result.replay or "not from the command line"),
        ("Scenario", str(result.scenario.get("description") or result.scenario["name"])),
        ("Plan", f"{result.plan}: {result.counts['steps']:,} steps, seed {result.seed}"),
        ("Room", f"{result.room} at {result.target}"),
        ("Done to the server", "; ".join(result.struck) or "nothing"),
        ("Connections", faults),
        ("Machine", f"{machine['cpu']}, {machine['cores']} cores, {memory}, {machine['system']}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in result.versions.items())),
        ("Commit", result.commit or "unknown"),
        ("Beside this file", "summary.json, plan.json.gz, history.msgpack.gz, dumps.json.gz, latency/*.hlog"),
    ]
    return _table(("", ""), [[(name, "id"), (value, "wrap")] for name, value in rows])
