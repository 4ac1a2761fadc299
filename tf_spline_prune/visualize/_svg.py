"""Pictures as SVG text for a page: they need no library and fit any width.

Sizes along the page are percentages, so letters keep their size where the picture
grows or shrinks. Colours are classes, which `STYLE` explains to the page.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

# Contrast with the paper: letters 4.5:1 and more, everything else 3:1.
STYLE = """
:root { --paper: #ffffff; --ink: #1c2128; --soft: #57606a; --rule: #d8dee4;
  --full: #8b949e; --now: #0a5fd1; --mark: #b3261e; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1318; --ink: #e6edf3;
  --soft: #9ea7b3; --rule: #343b44; --full: #737c87; --now: #58a6ff;
  --mark: #ff8f85; } }
svg { display: block; width: 100%; overflow: visible; }
svg text { fill: var(--ink); font-size: 14px; }
svg .soft { fill: var(--soft); font-size: 13px; }
svg .full { fill: var(--full); }
svg .now { fill: var(--now); }
svg .rule, svg .line, svg .mark { fill: none; vector-effect: non-scaling-stroke; }
svg .rule { stroke: var(--rule); }
svg .line { stroke: var(--now); stroke-width: 2px; stroke-linecap: round; }
svg .mark { stroke: var(--mark); stroke-width: 2px; }
"""

# The plot of a curve: percentages from the left, pixels from above.
_LEFT, _WIDTH, _TOP, _HEIGHT = 13, 85, 8, 190
_LEGEND = 20
_ROW = 42
_MOST_LETTERS = 30
# The nearest distances are drawn in full, later ones more and more broken.
_DASHES = ("none", "7 5", "2 5", "12 4 2 4", "1 9")

Bar = tuple[str, float, float, str]


def pair_bars(bars: Sequence[Bar], title: str) -> str:
    """Draw pairs of bars, what was and on it what is left, on one scale.

    Args:
        bars: For each pair its name, the two numbers, and the text beside it.
        title: What a reader who does not see the picture is told.

    Returns:
        An `svg` element.
    """
    largest = max((max(old, new) for _, old, new, _ in bars), default=0) or 1
    parts = []
    for row, (name, old, new, text) in enumerate(bars):
        top = _ROW * row
        # The end of a path tells more than its beginning.
        long = len(name) > _MOST_LETTERS
        shown = "…" + name[1 - _MOST_LETTERS :] if long else name
        parts.append(
            f"<g><title>{escape(f'{name}: {text}')}</title>"
            f'<text x="0" y="{top + 14}">{escape(shown)}</text>'
            f'<text x="100%" y="{top + 14}" text-anchor="end">{escape(text)}</text>'
            f'<rect class="full" x="0" y="{top + 20}" height="14" rx="2" '
            f'width="{_percent(old / largest)}"/>'
            f'<rect class="now" x="0" y="{top + 23}" height="8" rx="1" '
            f'width="{_percent(new / largest)}"/></g>'
        )
    return _svg(_ROW * len(bars), title, parts)


def distance_curve(
    records: Mapping[int, Sequence[float]],
    bound: float | None,
    ticket_epoch: int | None,
    title: str,
) -> str:
    """Plot, epoch by epoch, how far the newest snapshot is from earlier ones.

    Args:
        records: For each epoch, counted from 0, the distances to the snapshots of
            the last epochs, the nearest first; at least one epoch.
        bound: The bound to draw.
        ticket_epoch: The epoch to mark, counted from 0.
        title: What a reader who does not see the picture is told.

    Returns:
        An `svg` element.
    """
    epochs = sorted(records)
    first, last = epochs[0], epochs[-1]
    values = [value for distances in records.values() for value in distances]
    steps = _ticks(max([*values, bound or 0]) or 1.0)
    height = steps[-1]

    def across(epoch: float) -> float:
        return (epoch - first) / (last - first) if last > first else 0.5

    plot, legend = [], []
    for step in steps:
        y = 1000 * (1 - step / height)
        plot.append(f'<path class="rule" d="M0 {y:.1f}H1000"/>')
    for lag in range(max(map(len, records.values()))):
        points = [
            f"{1000 * across(e):.1f},{1000 * (1 - records[e][lag] / height):.1f}"
            for e in epochs
            if len(records[e]) > lag
        ]
        points = points * 2 if len(points) == 1 else points  # a dot
        look = f'class="line" stroke-dasharray="{_DASHES[lag % len(_DASHES)]}"'
        plot.append(f'<polyline {look} points="{" ".join(points)}"/>')
        before = f"{lag + 1} epochs" if lag else "the epoch"
        legend.append((look, f"to {before} before"))
    if bound is not None:
        look = 'class="mark"'
        plot.append(f'<path {look} d="M0 {1000 * (1 - bound / height):.1f}H1000"/>')
        legend.append((look, f"threshold {bound:.4g}"))
    if ticket_epoch is not None:
        look = 'class="mark" stroke-dasharray="5 4"'
        plot.append(f'<path {look} d="M{1000 * across(ticket_epoch):.1f} 0V1000"/>')
        legend.append((look, f"early bird, after epoch {ticket_epoch + 1}"))
    parts = [
        f'<svg x="{_LEFT}%" y="{_TOP}" width="{_WIDTH}%" height="{_HEIGHT}" '
        f'viewBox="0 0 1000 1000" preserveAspectRatio="none">{"".join(plot)}</svg>'
    ]
    for step in steps:
        y = _TOP + _HEIGHT * (1 - step / height) + 4
        parts.append(_tick(_percent((_LEFT - 2) / 100), y, "end", f"{step:.4g}"))
    for epoch in _whole_ticks(first + 1, last + 1):
        x = _percent((_LEFT + _WIDTH * across(epoch - 1)) / 100)
        parts.append(_tick(x, _TOP + _HEIGHT + 18, "middle", str(epoch)))
    for row, (look, text) in enumerate(legend):
        y = _TOP + _HEIGHT + 44 + _LEGEND * row
        parts.append(f'<path {look} d="M4 {y - 5}h36"/>')
        parts.append(f'<text x="48" y="{y}">{escape(text)}</text>')
    return _svg(_TOP + _HEIGHT + 34 + _LEGEND * len(legend), title, parts)


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg role="img" height="{height}" aria-label="{escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _tick(x: str, y: float, anchor: str, text: str) -> str:
    place = f'x="{x}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="soft" {place}>{text}</text>'


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"


def _ticks(largest: float) -> list[float]:
    """Return round numbers from 0 on, the last not below the largest value."""
    rough = largest / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    return [step * i for i in range(math.ceil(largest / step - 1e-9) + 1)]


def _whole_ticks(first: int, last: int) -> range:
    """Return at most six epochs, in steps of a round number."""
    sizes = (s * 10**p for p in range(9) for s in (1, 2, 5))
    step = next(s for s in sizes if (last - first) // s < 6)
    return range(first + -first % step, last + 1, step)
