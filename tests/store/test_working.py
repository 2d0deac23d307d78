"""Learnt working memory in the store."""

from panic.store import Store, check, dump, migrate, working


def test_the_largest_need_stays_per_fingerprint_device_kind_and_shape(folder):
    with Store(folder, write=True, create=True) as store:
        working.learn(store, "sim", [("f", 0, 1, 100), ("f", 64, 1, 30), ("f", 0, 2, 150), ("g", 0, 1, 7)])
        working.learn(store, "cuda X", [("f", 0, 1, 900)])
        working.learn(store, "sim", [("f", 0, 1, 90), ("f", 0, 2, 160)])
    with Store(folder) as store:
        assert working.known(store, "sim") == {"f": {0: {1: 100, 2: 160}, 64: {1: 30}}, "g": {0: {1: 7}}}
        assert working.known(store, "cuda X") == {"f": {0: {1: 900}}}
        assert working.known(store, "mps") == {}


def test_what_was_learnt_can_be_forgotten_and_is_no_result(folder, sample):
    with Store(folder) as store:
        before = list(dump.dump(store))
    with Store(folder, write=True) as store:
        working.learn(store, "sim", [("f", 0, 1, 100)])
        assert list(dump.dump(store)) == before
        assert check.check(store) == []
        assert working.forget(store) == 1
        assert working.known(store, "sim") == {}


def test_what_version_2_had_learnt_is_known_of_items_of_one_shape(folder, monkeypatch):
    shipped = migrate.migrations
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "migrations", lambda kind: shipped(kind)[: 2 if kind == "store" else None])
        with Store(folder, write=True, create=True) as store:
            store.db.insert("INSERT INTO working_memory VALUES ('f', 'sim', 4, 100, 0.0)")
    with Store(folder, write=True) as store:
        assert working.known(store, "sim") == {"f": {0: {4: 100}}}
        assert check.check(store) == []


def test_nothing_learnt_changes_nothing(writer):
    before = writer.revision
    working.learn(writer, "sim", [])
    assert writer.revision == before
