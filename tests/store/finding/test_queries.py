"""What filters find in a store, known answers over the sample (`tests/store/sample.py`)."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import panic
from panic.errors import FilterError, UsageError
from panic.store import Store, dump, reading, standing, writing
from panic.store.annotations import Target, annotate, list_annotations
from panic.store.codec import text_digest
from panic.store.finding import queries
from panic.store.finding.fields import Fields, Metric
from panic.store.finding.matching import BUDGET_S, Matcher, TooSlow
from panic.store.finding.narrowing import OF_EXPERIMENTS, only_experiments, only_runs
from panic.store.finding.queries import Query, config_paths, table
from panic.store.signing import Author
from tests.store.sample import Sample, remark

FIELDS = Fields()


@pytest.fixture(scope="module")
def marked(filled: tuple[Path, Sample], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The sample with tags, labels, comments, and configs that say something; only to be read."""
    folder = tmp_path_factory.mktemp("marked") / "store"
    shutil.copytree(filled[0], folder)
    with Store(folder, write=True) as store:
        mark(store, filled[1])
        yield store


@pytest.fixture
def own(writer: Store, sample: Sample) -> Store:
    """Another one, to be changed."""
    mark(writer, sample)
    return writer


def mark(writer: Store, sample: Sample) -> None:
    alpha, beta = (row.uid for row in reading.experiments(writer))
    stuck = next(run for run in reading.runs(writer) if run.id == sample.stuck)
    uid = dump.run_key("alpha", stuck.network, stuck.prompt, stuck.seed, stuck.repeat)
    for kind, of, target, text in (
        ("tag", "experiment", alpha, "baseline"),
        ("tag", "experiment", beta, "odd"),
        ("untag", "experiment", beta, "odd"),
        ("tag", "experiment", beta, "late"),
        ("label", "experiment", alpha, "first"),
        ("label", "experiment", alpha, "second"),
        ("comment", "experiment", beta, "a horse, it seems"),
        ("tag", "run", uid, "nice"),
    ):
        on = Target(kind=of, uid=target, name=target, run=sample.stuck)
        annotate(writer, kind, [(on, text)], Author(name="me"))
    with writer.transaction() as connection:
        connection.execute(
            "UPDATE experiment SET config = json_set(config, '$.project', 'colours', '$.models',"
            ' json(\'{"draw": {"steps": 4, "kind": "a", "fast": true}, "x.y": {"steps": 2}}\'),'
            " '$.embeddings', json('[\"embed\"]')) WHERE name = 'alpha'"
        )
        connection.execute("UPDATE session SET end_state = 'done', ended_at = started_at + 1")


def experiments(store: Store, where: str | None, sort: str = "") -> list[str]:
    ids = queries.find(store, Query(target="experiment", where=where, sort=sort), FIELDS)
    return [name for (name,) in table(store, "experiment", ids, ["name"], FIELDS)]


def runs(store: Store, where: str | None, sort: str = "") -> list[int]:
    return queries.find(store, Query(target="run", where=where, sort=sort), FIELDS)


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("name = alpha", ["alpha"]),
        ("name != alpha", ["beta"]),
        ("name in (alpha, beta, 'gamma')", ["alpha", "beta"]),
        ("name not in (alpha)", ["beta"]),
        ("name like 'AL%'", ["alpha"]),
        ("name ~ '^b|x'", ["beta"]),
        ("name !~ '^b'", ["alpha"]),
        ("runs = 4", ["alpha"]),
        ("runs >= 1 and runs < 2", ["beta"]),
        ("stuck = 1 and failed = 1 and todo = 1 and done = 1", ["alpha"]),
        ("invocations > 8", ["alpha"]),
        ("embeddings = 3 and diagrams = 1", ["alpha"]),
        ("created > -1h and started > -1h and created < now", ["alpha", "beta"]),
        ("created > 2100-01-01", []),
        ("created > '2020-01-01 12:30'", ["alpha", "beta"]),
        ("'baseline' in tags", ["alpha"]),
        ("odd in tags", []),
        ("odd not in tags and tags = late", ["beta"]),
        ("tags like 'b%'", ["alpha"]),
        ("tags is null", []),
        ("label = second", ["alpha"]),
        ("label is null", ["beta"]),
        ("comments ~ horse", ["beta"]),
        ("project = colours", ["alpha"]),
        ("not project = colours", ["beta"]),
        ("project != colours", ["beta"]),
        ("config.models.draw.steps = 4", ["alpha"]),
        ("config.models.draw.steps > 3", ["alpha"]),
        ("config.models.draw.kind > 3", []),
        ("config.models.draw.fast = true", ["alpha"]),
        ('config.models."x.y".steps in (1, 2)', ["alpha"]),
        ("'embed' in config.embeddings", ["alpha"]),
        ("config.embeddings.0 = embed", ["alpha"]),
        ("config.nowhere is null", ["alpha", "beta"]),
        ("is_null = true", []),
        ("state = incomplete", []),
        ("state = failed", ["alpha"]),
        ("state in (complete, failed)", ["alpha", "beta"]),
        ("state = stuck", ["alpha"]),
        ("run.state = done", ["alpha", "beta"]),
        ("state = stuck and prompt = z", []),
        ("state = stuck or prompt = z", ["alpha"]),
        ("model = draw and seed = 7", ["beta"]),
        ("'draw' in model and network = 'draw → tell'", ["alpha", "beta"]),
        ("steps = 0", ["alpha"]),
    ],
)
def test_experiments_are_found(marked: Store, where: str, names: list[str]) -> None:
    assert experiments(marked, where) == names


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ("state = stuck", ["stuck"]),
        ("state != stuck", ["noisy", "failed", "untouched", "shared"]),
        ("not (period > 2)", ["stuck", "noisy", "failed", "untouched", "shared"]),
        ("period = 2 and entry_step = 2", ["stuck"]),
        ("period is null and name = beta", ["shared"]),
        ("failure = 'empty text' and message like 'noth%'", ["failed"]),
        ("state = todo", ["untouched"]),
        ("seed = -1", ["noisy"]),
        ("length > steps", None),
        ("length = 6 and steps < 4", ["failed", "untouched"]),
        ("prompt = a", ["stuck", "noisy", "shared"]),
        ("state = complete", ["shared"]),
        ("experiment.state = failed and state = done", ["noisy"]),
        ("nice in tags", ["stuck"]),
        ("baseline in tags", ["stuck", "noisy", "failed", "untouched"]),
        ("late in tags or runs = 0", ["shared"]),
    ],
)
def test_runs_are_found(marked: Store, sample: Sample, where: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(FilterError, match="length is a number"):
            runs(marked, where)
    else:
        assert runs(marked, where) == [getattr(sample, name) for name in names]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nmae = x", "Did you mean name"),
        ("zzz = x", "panic fields"),
        ("runs = many", "runs is a number"),
        ("runs = '4'", "runs is a number"),
        ("runs > 1e999", "runs is a number"),
        ("runs like '4'", "is for texts"),
        ("created > yesterday", "For example -6h"),
        ("created > 2026-13-45", "For example -6h"),
        ("is_null = maybe", "true or false"),
        ("is_null > true", "has no order"),
        ("state < complete", "has no order"),
        ("state = stcuk", "Did you mean stuck"),
        ("name ~ '('", "no regular expression"),
        (f"name ~ '{'a' * 1001}'", "at most 1,000 characters"),
        (f"name like '{'%' * 1001}'", "at most 1,000 characters"),
        ("'a' = name", "A field stands here"),
        ("2 < runs", "not 2 < period"),
        ("'a' in name", "holds no others"),
        ("'a' in 'tags'", "without quotes"),
        ("config = 3", "no field by itself"),
        ("config.models.draw.stepps = 3", "Did you mean config.models.draw.steps"),
        ('config."a\'b".c = 3', "No experiment's config"),
    ],
)
def test_what_there_is_not_is_told_with_the_place(marked: Store, where: str, said: str) -> None:
    with pytest.raises(FilterError) as raised:
        experiments(marked, where)
    assert said in str(raised.value)
    assert "^" in raised.value.message


def test_values_are_bound_and_never_a_part_of_the_sql(marked: Store) -> None:
    for text in ("x' OR '1'='1", "'; DROP TABLE run; --", '" OR 1=1', "%s {path} ?1 :a", "\x00"):
        quoted = "'" + text.replace("'", "''") + "'"
        for where in (f"name = {quoted}", f"tags = {quoted}", f"name in ({quoted}, b)", f"{quoted} in tags"):
            assert experiments(marked, where) == []
        assert experiments(marked, f"config.name = {quoted}") == []
    assert experiments(marked, "runs > 0") == ["alpha", "beta"]


def test_a_number_in_quotes_is_a_name_and_only_plain_digits_are_places(own: Store) -> None:
    with own.transaction() as connection:
        connection.execute(
            "UPDATE experiment SET config = json_set(config, '$.models', json('{\"2\": {\"a.b\": 7}}'))"
        )
    assert experiments(own, 'config.models."2"."a.b" = 7') == ["alpha", "beta"]
    assert 'config.models."2"."a.b"' in config_paths(own)
    for part in ("2", "²", "٣"):
        with pytest.raises(FilterError, match="No experiment's config has this"):
            experiments(own, f"config.models.{part} = 7")


def test_a_label_that_was_taken_away_is_none(own: Store, sample: Sample) -> None:
    remark(own, "alpha", "", kind="label")
    assert experiments(own, "label is null") == ["alpha", "beta"]
    assert experiments(own, "label is not null") == []
    assert runs(own, "label is not null") == []


def test_a_seed_of_many_digits_is_found(own: Store) -> None:
    seed = 2**53 + 1
    with own.transaction() as connection:
        connection.execute("UPDATE run SET seed = ? WHERE seed = 7", (seed,))
    assert runs(own, f"seed = {seed}")
    assert not runs(own, f"seed = {seed - 1}")


def test_bytes_that_are_no_text_have_an_answer(marked: Store) -> None:
    with pytest.raises(FilterError, match="not UTF-8"):
        experiments(marked, "name = '\udcff'")
    for none in "\ud800\udcff\udfff":
        with pytest.raises(UsageError, match="not UTF-8"):
            experiments(marked, None, sort=f"config.{none}")
        with pytest.raises(FilterError, match="not UTF-8"):
            experiments(marked, f"name = '{none}'")
    for one in "\ud7ff\ue000":
        assert experiments(marked, f"name = '{one}'") == []
        with pytest.raises(UsageError, match="No experiment's config has this"):
            experiments(marked, None, sort=f"config.{one}")


def test_hundreds_of_conditions_on_tags_have_an_answer_at_once(marked: Store) -> None:
    """SQLite prepared 5,000 of them for more than ten minutes."""
    with pytest.raises(FilterError, match="at most 200 conditions"):
        runs(marked, " or ".join(f"'a{number}' in tags" for number in range(5_000)))
    wanted = ", ".join(f"a{number}" for number in range(5_000))
    assert experiments(marked, f"tags in ({wanted}, baseline)") == ["alpha"]


def test_only_the_matching_takes_time_from_regular_expressions() -> None:
    """A query over millions of rows takes its time beside them."""
    matcher = Matcher(budget_s=0.05)
    matcher.add("a")
    time.sleep(0.1)
    assert matcher("a", "cat")


@pytest.mark.parametrize("part", ["a]", "$", "a'b", "[0]", "a.b", "#-1", "*", "\\"])
def test_hostile_names_of_fields_of_configs_find_nothing(marked: Store, part: str) -> None:
    with pytest.raises(FilterError):
        experiments(marked, f'config."{part}".x = 3')


def test_a_regular_expression_that_never_ends_is_stopped(own: Store) -> None:
    remark(own, "beta", "a" * 60 + "!")
    begun = time.thread_time()
    with pytest.raises(TooSlow, match="takes longer"):
        experiments(own, r"comments ~ '(a|aa)+$'")
    assert time.thread_time() - begun < 30 * BUDGET_S
    assert experiments(own, "comments ~ 'a!$'") == ["beta"]


@pytest.mark.parametrize(
    "pattern",
    ["((a{1000}){1000}){1000}", "a{1000000000}", "a{2,1000000000}", "(" * 499, "[b", "(?R)", "(a(?1))"],
)
def test_a_regular_expression_that_cannot_be_compiled_is_refused(marked: Store, pattern: str) -> None:
    with pytest.raises(FilterError, match="regular expression"):
        experiments(marked, f"name ~ '{pattern}'")


def test_many_conditions_do_not_exceed_sqlite(marked: Store) -> None:
    assert experiments(marked, " or ".join(["name = alpha"] * 2_000)) == ["alpha"]
    assert experiments(marked, f"runs in ({', '.join(map(str, range(5_000)))})") == ["alpha", "beta"]
    nested = "name = beta"
    for number in range(16):
        nested = (
            f"(name = x{number} or not ({nested} and runs > 0 and " + "runs >= 0 and " * 60 + "runs < 9))"
        )
    assert experiments(marked, nested) == ["beta"]


@pytest.mark.parametrize(
    ("sort", "names"),
    [("-runs", ["alpha", "beta"]), ("runs,name", ["beta", "alpha"]), ("-label,-name", ["alpha", "beta"])],
)
def test_an_order_has_what_is_missing_last(marked: Store, sort: str, names: list[str]) -> None:
    assert experiments(marked, "runs > 0", sort) == names


def test_runs_are_sorted(marked: Store, sample: Sample) -> None:
    assert runs(marked, "name = alpha", "-period,-run") == [
        sample.stuck, sample.untouched, sample.failed, sample.noisy,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sort", "said"), [("perod", "period"), ("period", "field of runs"), ("a;b", "no field")]
)
def test_an_order_by_what_there_is_not_is_refused(marked: Store, sort: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        experiments(marked, None, sort)
    assert said in str(raised.value)


def test_columns_have_the_values_of_the_records(marked: Store, sample: Sample) -> None:
    names = [
        "run",
        "state",
        "steps",
        "period",
        "prompt",
        "seed",
        "repeat",
        "length",
        "model",
        "tags",
        "label",
    ]
    ids = runs(marked, None)
    for row, run in zip(table(marked, "run", ids, names, FIELDS), reading.runs(marked), strict=True):
        assert row[:9] == (
            run.id, run.state, run.num_steps, run.period, run.prompt, run.seed, run.repeat, run.max_length,
            list(run.network),
        )  # fmt: skip
    ((tags, label),) = table(marked, "run", [sample.stuck], ["tags", "label"], FIELDS)
    assert (sorted(tags), label) == (["baseline", "nice"], "second")


def test_standings_at_once_are_those_one_by_one(marked: Store) -> None:
    for experiment, state, *counts in standing.standings(marked):
        now = standing.standing(marked, reading.experiment(marked, experiment))
        names = [{"begun": "running"}.get(name, name) for name in standing.RUN_COUNTS]
        assert (state, counts) == (now.state, [getattr(now.counts, name) for name in names])


def test_an_experiment_that_was_asked_for_less_is_incomplete_in_both(own: Store) -> None:
    """The union asks for an embedding model that no session has brought."""
    row = reading.experiment(own, "beta")
    session = writing.start_session(own, row.id, "again", {}, row.config)
    writing.end_session(own, session, "done")
    assert experiments(own, "state = complete") == ["beta"]
    with own.transaction() as connection:
        connection.execute("UPDATE experiment SET config = json_set(config, '$.x', 1) WHERE name = 'beta'")
    assert experiments(own, "name = beta and state = complete") == [
        name for name in ["beta"] if standing.standing(own, reading.experiment(own, name)).state == "complete"
    ]  # fmt: skip


def test_metrics_are_fields_when_they_are_given(marked: Store, sample: Sample) -> None:
    fields = Fields([Metric(name="drift", of="run", about="how far", example="drift > 1")])
    marked.db.connection.execute("CREATE TEMP TABLE run_metric (run INTEGER PRIMARY KEY, drift REAL)")
    marked.db.connection.execute("INSERT INTO temp.run_metric VALUES (?, 0.5)", (sample.stuck,))
    assert queries.find(marked, Query(target="run", where="drift > 0.4"), fields) == [sample.stuck]
    with pytest.raises(FilterError, match="no field 'drift'"):
        runs(marked, "drift > 1")


def test_the_fields_of_configs_are_listed_once(marked: Store) -> None:
    paths = config_paths(marked)
    assert paths["config.models.draw.steps"] == "4"
    assert paths["config.models.draw.fast"] == "true"
    assert paths['config.models."x.y".steps'] == "2"
    assert len(config_paths(marked, most=2)) == 2


def test_a_filter_reads_without_writing(folder: Path, own: Store) -> None:
    with Store(folder) as reader:
        before = reader.revision
        assert experiments(reader, "runs > 3 and state = failed") == ["alpha"]
        assert reader.revision == before


def test_python_finds_dictionaries(marked: Store, sample: Sample) -> None:
    assert [row["name"] for row in panic.find(marked, "runs > 1")] == ["alpha"]
    columns = ["run", "period", "model", "arm"]
    (row,) = panic.find(marked, "state = stuck", of="run", columns=columns, sort="-run")
    assert row == {"run": sample.stuck, "period": 2, "model": ["draw", "tell"], "arm": "baseline"}


def test_a_narrowed_store_has_only_what_was_chosen_and_is_whole_again(marked: Store, sample: Sample) -> None:
    before = reading.counts(marked)
    with only_runs(marked, [sample.noisy, sample.shared]):
        assert [run.id for run in reading.runs(marked)] == [sample.noisy, sample.shared]
        assert reading.counts(marked, "alpha").invocations == 4
    with only_experiments(marked, [sample.beta]):
        assert [row.name for row in reading.experiments(marked)] == ["beta"]
        assert reading.counts(marked).invocations == 2
        assert {row.text for row in list_annotations(marked)} == {"odd", "late", "a horse, it seems"}
        tables = marked.db.rows("SELECT name FROM main.sqlite_schema WHERE type = 'table'")
        of_none = {"meta", "model", "measure", "working_memory", "invariance"}
        derived = {name for (name,) in tables if name.split("_")[0] in ("sqlite", "caption", "change")}
        assert {name for (name,) in tables} <= {*OF_EXPERIMENTS} | of_none | derived
    with pytest.raises(ZeroDivisionError), only_runs(marked, []):
        raise ZeroDivisionError
    assert reading.counts(marked) == before


def test_labels_of_prompts_are_fields_of_runs(own: Store, sample: Sample) -> None:
    [prompt] = {run.prompt for run in reading.runs(own) if run.id == sample.stuck}
    with own.transaction() as connection:
        connection.execute(
            "UPDATE experiment SET config = json_set(config, '$.labels', json_object(?, json(?)))",
            (prompt, '{"tags": ["barn", "it\'s"], "group": "colour"}'),
        )
    same = [run.id for run in reading.runs(own) if run.prompt == prompt]
    for where in ("'barn' in prompt_tags", "'it''s' in prompt_tags", "group = colour"):
        assert runs(own, where) == same, where
    assert runs(own, "group is null") == [run.id for run in reading.runs(own) if run.prompt != prompt]
    assert table(own, "run", same[:1], ["prompt_tags", "group"], FIELDS) == [(["barn", "it's"], "colour")]


def test_labels_of_many_prompts_were_read_once_for_every_run(own: Store) -> None:
    """The whole labels of a config were looked through for each run: 10,000 prompts took a minute."""
    many = 2_000
    [network, experiment] = own.db.rows("SELECT network, experiment FROM run LIMIT 1")[0]
    labels = {f"p {number}": {"tags": ["a", "b"], "group": f"g{number % 4}"} for number in range(many)}
    with own.transaction() as connection:
        connection.execute(
            "UPDATE experiment SET config = json_set(config, '$.labels', json(?)) WHERE id = ?",
            (json.dumps(labels), experiment),
        )
        for text in labels:
            connection.execute(
                "INSERT INTO output (digest, modality, text) VALUES (?, 'text', ?)", (text_digest(text), text)
            )
            connection.execute(
                "INSERT INTO run (experiment, network, prompt, seed, repeat, max_length, arm)"
                " VALUES (?, ?, last_insert_rowid(), 42, 0, 10, 'baseline')",
                (experiment, network),
            )
    began = time.thread_time()
    assert len(runs(own, "group = g1")) == many // 4
    assert len(runs(own, "'a' in prompt_tags")) == many
    assert time.thread_time() - began < 1
