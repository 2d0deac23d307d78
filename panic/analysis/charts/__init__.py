"""Charts, one function each: a polars frame or an array in, an altair chart out, readable by itself.

| question | chart |
|---|---|
| what took so long? | `time_by_model` |
| is it stuck, where, with which period? | `stuck_periods`, `recurrence_plot` |
| how far from the prompt? | `drift`, `drift_ridgeline` |
| does it wander, does it come back? | `distance_by_lag`, `recurrence_plot`, `embedding_map` |
| where does it stay, where does it go? | `cluster_timeline`, `transition_graph`, `dwell_survival` |
| how sensitive is it? | `divergence` |
| which shape has its path? | `persistence`, `barcode`, `entropy_by_group` |
| what is left of prompt or network? | `probe_scores` |
| which part dominates? | `group_effects` |
| do experiments end in the same places? | `cluster_shares` |
| is that more than chance? | `null_band` |
| what does it look like? | `run_strip`, `image_grid` |

    save(stuck_periods(load(store, "latest").runs), "stuck.html")
"""

from panic.analysis.charts.bars import HOMOLOGY, barcode, entropy_by_group, persistence
from panic.analysis.charts.evidence import cluster_shares, group_effects, null_band, probe_scores
from panic.analysis.charts.motion import distance_by_lag, divergence, drift, drift_ridgeline
from panic.analysis.charts.pictures import image_grid, run_strip
from panic.analysis.charts.states import (
    cluster_timeline,
    dwell_survival,
    embedding_map,
    recurrence_plot,
    transition_graph,
)
from panic.analysis.charts.theme import (
    FORMATS,
    THEMES,
    save,
    script_json,
    seconds,
    spec,
    themed,
    vega_bundle,
)
from panic.analysis.charts.work import stuck_periods, time_by_model

__all__ = [
    "FORMATS",
    "HOMOLOGY",
    "THEMES",
    "barcode",
    "cluster_shares",
    "cluster_timeline",
    "distance_by_lag",
    "divergence",
    "drift",
    "drift_ridgeline",
    "dwell_survival",
    "embedding_map",
    "entropy_by_group",
    "group_effects",
    "image_grid",
    "null_band",
    "persistence",
    "probe_scores",
    "recurrence_plot",
    "run_strip",
    "save",
    "script_json",
    "seconds",
    "spec",
    "stuck_periods",
    "themed",
    "time_by_model",
    "transition_graph",
    "vega_bundle",
]
