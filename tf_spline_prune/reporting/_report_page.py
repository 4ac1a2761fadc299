"""The page of a report: one file of HTML that needs nothing else."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from tf_spline_prune.visualize._svg import STYLE, Bar, distance_curve, pair_bars

# The rows of a report, by the keys of `Report.pairs`.
ROWS = {
    "macs": "MACs",
    "params": "parameters",
    "bytes": "weight bytes",
    "tflite_bytes": ".tflite bytes",
    "gzip_bytes": "gzip -9 of it",
    "latency_us": "latency (us)",
}


def number(key: str, value: float) -> str:
    """Write a number of a row: whole, or microseconds with one decimal."""
    return f"{value:,.1f}" if key == "latency_us" else f"{value:,.0f}"


def level(before: float | None, after: float | None) -> float | None:
    """Return the fraction that is kept; `None` where there is nothing to compare."""
    return after / before if before and after is not None else None


def fraction(kept: float | None) -> str:
    """Write what is kept, or a dash where nothing was there to be kept."""
    return "-" if kept is None else f"{kept:.1%}"


def why_not(reason: str) -> str:
    """Return the words for a row without numbers: the first sentence of the reason."""
    return f"not measured: {reason.partition('. ')[0].rstrip('.')}"


def bird_text(bird: Mapping[str, Any]) -> str:
    """Describe in one line when the early bird was found.

    Args:
        bird: `Report.bird`.

    Returns:
        The line.
    """
    if bird["ticket_epoch"] is not None:
        found = f"found after epoch {bird['ticket_epoch'] + 1}"
    elif bird["records"]:
        found = f"not found by epoch {max(bird['records']) + 1}"
    else:
        found = "it has seen no two epochs yet"
    bound = "" if bird["bound"] is None else f", threshold {bird['bound']:.4g}"
    return f"early bird: {found} ({bird['distance']}{bound})"


# A page that is told to load nothing loads nothing, whatever it is handed to.
_HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
"""
_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.25rem 1rem 3rem; max-width: 46rem;
  background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; line-height: 1.25; }
h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem; }
p, figcaption, summary { margin: .4rem 0 .9rem; color: var(--soft); }
summary { cursor: pointer; margin: .9rem 0 .4rem; }
figure { margin: 0 0 1rem; }
ul.tiles { display: grid; gap: .6rem; padding: 0; margin: 1.25rem 0 0; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); }
ul.tiles li { padding: .6rem .8rem; border: 1px solid var(--rule);
  border-radius: .5rem; color: var(--soft); font-size: .9rem; }
ul.tiles strong { display: block; font-size: 1.5rem; line-height: 1.3;
  color: var(--ink); }
.key { display: inline-block; width: .8em; height: .8em; border-radius: 2px; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9rem;
  overflow-wrap: break-word; }
th, td { padding: .35rem .5rem; border-bottom: 1px solid var(--rule);
  text-align: left; vertical-align: top; }
tbody th { font-weight: 400; }
td.n, th.n { text-align: right; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
footer { margin-top: 2.5rem; border-top: 1px solid var(--rule); }
"""
_KEYS = (
    'Grey <span class="key" style="background:var(--full)"></span> is the original, '
    'blue <span class="key" style="background:var(--now)"></span> what is left of it.'
)


def report_page(report: Any) -> str:
    """Write a report out as a page.

    Numbers stand in `data` elements, with all their digits in the attribute.

    Args:
        report: A `Report`.

    Returns:
        The HTML.
    """
    old, new = map(escape, report.names)
    title = f"Pruning report: {old}" if old == new else f"{old}, pruned to {new}"
    body = [
        f"<h1>{title}</h1>",
        _tiles(report),
        _costs(report),
        _units(report),
        _early_bird(report),
        _must_stay(report),
        f"<footer><p>Made by tf_spline_prune. {_how(report)}</p></footer>",
    ]
    return (
        f"{_HEAD}<title>{title}</title>\n<style>{STYLE}{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{''.join(part + chr(10) for part in body if part)}"
        "</main>\n</body>\n</html>\n"
    )


def _tiles(report: Any) -> str:
    """The few numbers that one looks for first."""
    tiles = []
    for key in ("macs", "params", "tflite_bytes", "latency_us"):
        kept = report.levels[key]
        if kept is not None:
            name = ROWS[key].removesuffix(" (us)")
            tiles.append(f"<strong>{_fraction(kept)}</strong>of the {name}")
    for name, (old, new) in report.scores.items():
        tiles.append(
            f"<strong>{_data(new, f'{new:.4g}')}</strong>"
            f"{escape(name)}, was {_data(old, f'{old:.4g}')}"
        )
    return f'<ul class="tiles">{"".join(f"<li>{tile}</li>" for tile in tiles)}</ul>'


def _costs(report: Any) -> str:
    bars: list[Bar] = []
    rows: list[tuple[str, ...]] = []
    for key, pair in report.pairs.items():
        if pair is None:
            rows.append((escape(ROWS[key]), escape(why_not(report.unmeasured[key]))))
            continue
        kept = report.levels[key]
        cells = [_data(value, number(key, value)) for value in pair]
        rows.append((ROWS[key], *cells, _fraction(kept)))
        if kept is not None:
            bars.append((ROWS[key], 1.0, kept, fraction(kept)))
    for name, (old, new) in report.scores.items():
        cells = [_data(value, f"{value:.4g}") for value in (old, new)]
        rows.append((escape(name), *cells, f"{new - old:+.2g}"))
    parts = [_figure(pair_bars(bars, "What is kept of each cost"), _KEYS)]
    parts.append(_table(("", "before", "after", "kept"), rows, "Costs"))
    if report.asked:
        parts.append(f"<p>Plan, {escape(report.asked)}.</p>")
    uncounted = [
        f"<p>MACs not known, in the {which} model: {escape(', '.join(cost.uncounted))}."
        "</p>"
        for cost, which in ((report.before, "original"), (report.after, "pruned"))
        if cost.uncounted
    ]
    reasons = dict.fromkeys(
        reason
        for key, reason in report.unmeasured.items()
        if not (key == "macs" and uncounted)
    )
    parts += uncounted
    parts += [f"<p>Not measured: {escape(reason)}</p>" for reason in reasons]
    return _section("What it costs", parts)


def _units(report: Any) -> str:
    bars, rows = [], []
    for path, (old, new) in report.units.items():
        cells = ["none" if n is None else _data(n, f"{n:,}") for n in (old, new)]
        rows.append((escape(path), *cells, _fraction(level(old, new))))
        text = f"{old:,} → {new:,}" if old and new else "gone" if old else "new"
        bars.append((path, old or 0, new or 0, text))
    if not rows:
        return ""
    table = _table(("layer", "before", "after", "kept"), rows, "Units by layer")
    return _section(
        "Units, layer by layer",
        [
            _figure(pair_bars(bars, "Units of each layer, before and after"), _KEYS),
            f"<details><summary>The same as a table</summary>{table}</details>",
        ],
    )


def _early_bird(report: Any) -> str:
    bird = report.bird
    if bird is None:
        return ""
    text = f"<p>{escape(bird_text(bird)).capitalize()}.</p>"
    if not bird["records"]:
        return _section("Early bird", [text])
    title = f"Distances by epoch; {bird_text(bird)}"
    curve = distance_curve(bird["records"], bird["bound"], bird["ticket_epoch"], title)
    caption = "How far each epoch's snapshot is from those before it, by epoch."
    lags = max(map(len, bird["records"].values()))
    rows = [
        (
            str(e + 1),
            *(_data(d, f"{d:.4g}") for d in found),
            *[""] * (lags - len(found)),
        )
        for e, found in sorted(bird["records"].items())
    ]
    head = ("epoch", *(f"{lag + 1} before" for lag in range(lags)))
    table = _table(head, rows, "Distances to earlier epochs")
    return _section(
        "Early bird",
        [
            text,
            _figure(curve, caption),
            f"<details><summary>The same as a table</summary>{table}</details>",
        ],
    )


def _must_stay(report: Any) -> str:
    if not report.barriers:
        return ""
    rows = [
        (
            escape(b.layer),
            _data(b.units, f"{b.units:,}") if b.units else "",
            escape(b.reason),
        )
        for b in report.barriers
    ]
    return _section(
        "Unprunable units", [_table(("layer", "units", "why"), rows, "Barriers")]
    )


def _how(report: Any) -> str:
    if report.latency_us is None:
        return ""
    threads = f"{report.num_threads} thread" + "s" * (report.num_threads > 1)
    return f"Latencies: LiteRT, float32, batch 1, {threads}; in turns, medians."


def _section(title: str, parts: Sequence[str]) -> str:
    return f"<section>\n<h2>{title}</h2>\n{chr(10).join(parts)}\n</section>"


def _figure(picture: str, caption: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{picture}</figure>"


def _data(value: float, text: str) -> str:
    return f'<data value="{value}">{text}</data>'


def _fraction(kept: float | None) -> str:
    return fraction(None) if kept is None else _data(kept, fraction(kept))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    """Lay out cells of HTML; a wide table scrolls in a box of its own."""
    numeric = {i for row in rows for i, c in enumerate(row) if c.startswith("<data")}

    def look(place: int) -> str:
        return ' class="n"' if place in numeric else ""

    def cell(place: int, text: str, count: int) -> str:
        if not place:
            return f'<th scope="row">{text}</th>'
        if place == count - 1 and count < len(head):  # words in the place of numbers
            return f'<td colspan="{len(head) - place}">{text}</td>'
        return f"<td{look(place)}>{text}</td>"

    heads = (f'<th scope="col"{look(i)}>{text}</th>' for i, text in enumerate(head))
    lines = (
        f"<tr>{''.join(cell(i, c, len(row)) for i, c in enumerate(row))}</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>'
        f"<thead><tr>{''.join(heads)}</tr></thead>\n"
        f"<tbody>{chr(10).join(lines)}</tbody></table></div>"
    )
