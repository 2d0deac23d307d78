"""What charts share, and the charts that several questions draw; the others are with their questions.

| question | chart |
|---|---|
| is that more than chance? | `null_band` |
| where does it go next? | `transition_graph` |
| what does it look like? | `run_strip` |

    save(null_band(table), "band.html")
"""

from panic.analysis.charts.bands import null_band, outside
from panic.analysis.charts.graph import transition_graph
from panic.analysis.charts.images import run_strip
from panic.analysis.charts.theme import (
    FORMATS,
    GREY,
    SQUARE,
    THEMES,
    WIDTH,
    colour,
    data,
    finish,
    named,
    names_of,
    save,
    script_json,
    seconds,
    spec,
    themed,
    vega_bundle,
)

__all__ = [
    "FORMATS",
    "GREY",
    "SQUARE",
    "THEMES",
    "WIDTH",
    "colour",
    "data",
    "finish",
    "named",
    "names_of",
    "null_band",
    "outside",
    "run_strip",
    "save",
    "script_json",
    "seconds",
    "spec",
    "themed",
    "transition_graph",
    "vega_bundle",
]
