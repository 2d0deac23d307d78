"""Pieces of SQL that several questions to a store share, each written once.

In all of them `?1` stands for the row of an experiment, unless its docstring says otherwise.
"""

from __future__ import annotations

USED_OUTPUTS = (
    "SELECT prompt FROM run WHERE experiment = ?1 UNION"
    " SELECT output FROM run JOIN invocation ON invocation.run = run.id WHERE experiment = ?1"
)
"""Rows of the outputs that an experiment's runs have, prompts included."""
RUN_OUTPUTS = "SELECT prompt FROM run WHERE id = ?1 UNION SELECT output FROM invocation WHERE run = ?1"
"""Rows of the outputs of run ?1, its prompt included."""
NUM_STEPS = "coalesce((SELECT max(step) + 1 FROM invocation WHERE invocation.run = run.id), 0)"
"""How many steps a row of `run` has."""
IMAGE_STEPS = (
    "FROM run CROSS JOIN invocation AS i ON i.run = run.id"
    " JOIN output AS made ON made.id = i.output AND made.modality = 'image'"
)
"""Every step that put out an image, as `run`, `i` and `made`; of all experiments."""


def current_diagrams(where: str) -> str:
    """The diagrams with most points, among those that `where` chooses from `diagram JOIN run`.

    One row (id, run, model, settings_digest, num_points, num_unique) per run, model and settings.
    """
    return (
        "SELECT diagram.id AS id, run, model, settings_digest, max(num_points) AS num_points, num_unique"
        f" FROM diagram JOIN run ON run.id = run {where} GROUP BY run, model, settings_digest"
    )


CURRENT = current_diagrams("WHERE experiment = ?1 AND model = ?2 AND coalesce(settings_digest = ?3, TRUE)")
"""The current diagrams of an experiment under model ?2, of settings ?3, or of any where that is NULL."""
