"""What is the longest text? A question in one file, as `panic.analysis.questions` describes it."""

import altair as alt

from panic.analysis.charts import data, finish
from panic.analysis.evidence import once

TITLE = "The longest text"
CAVEAT = "Letters, not words."
views = once


def table(evidence, view=None):
    texts = evidence.data.outputs.drop_nulls("text")
    return texts.select("text", letters=texts["text"].str.len_chars()).sort("letters") if len(texts) else None


def chart(answer):
    return finish(alt.Chart(data(answer)).mark_bar().encode(alt.X("letters:Q", bin=True), y="count()"), TITLE)


def sentence(answer):
    return f"The longest of {len(answer)} texts has {answer['letters'][-1]} letters."
