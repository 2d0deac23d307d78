"""Metrics of runs and experiments that were worked out once: columns of listings, and what filters ask for.

They are kept beside the store (`panic.store.summaries`), by the stamp of an experiment's results and the version of
their definitions; a listing works out what is lacking. An experiment's is the mean over its runs.

    find(store, "drift > 0.3", columns=["name", "drift"], sort="-drift")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import batched_by
from typing import Any

from panic.analysis.metrics import METRICS, VERSION, metric
from panic.store import summaries
from panic.store.finding import found
from panic.store.finding.fields import FIELDS, Fields, Metric, Target
from panic.store.store import Store
