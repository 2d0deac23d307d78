"""What charts share, and the charts that several questions draw; the others are with their questions.

| question | chart |
|---|---|
| is that more than chance? | `null_band`, `beside_shuffles` |
| where does it go next? | `transition_graph` |
| what does it look like? | `run_strip` |

    save(null_band(table), "band.html")

Which steps an axis or a sentence means is said by `charts.steps`.
"""

from panic.analysis.charts.bands import beside_shuffles, intervals, null_band, outside
from panic.analysis.charts.graph import numbered, transition_graph
from panic.analysis.charts.images import run_strip
from panic.analysis.charts.steps import (
    CALL,
    STEPS,
    WHOLE,
    at_call,
    between_calls,
    call_axis,
    call_tip,
    counted,
)
from panic.analysis.charts.theme import (
    FORMATS,
    GREY,
    MAX_BESIDE,
    SQUARE,
    THEMES,
    WIDTH,
    colour,
    data,
    finish,
    first_names,
    in_order,
    named,
    names_of,
    plain,
    save,
    script_json,
    seconds,
    spec,
    themed,
    vega_bundle,
)

__all__ = [
    "CALL",
    "FORMATS",
    "GREY",
    "MAX_BESIDE",
    "SQUARE",
    "STEPS",
    "THEMES",
    "WHOLE",
    "WIDTH",
    "at_call",
    "beside_shuffles",
    "between_calls",
    "call_axis",
    "call_tip",
    "colour",
    "counted",
    "data",
    "finish",
    "first_names",
    "in_order",
    "intervals",
    "named",
    "names_of",
    "null_band",
    "numbered",
    "outside",
    "plain",
    "run_strip",
    "save",
    "script_json",
    "seconds",
    "spec",
    "themed",
    "transition_graph",
    "vega_bundle",
]
