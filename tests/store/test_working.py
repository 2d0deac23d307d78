"""Learnt working memory in the store."""

from panic.store import Store, working


def test_the_largest_need_stays_per_fingerprint_device_kind_and_batch_size(folder):
    with Store(folder, write=True, create=True) as store:
        working.learn(store, "sim", [("f", 1, 100), ("f", 2, 150), ("g", 1, 7)])
        working.learn(store, "cuda X", [("f", 1, 900)])
        working.learn(store, "sim", [("f", 1, 90), ("f", 2, 160)])
    with Store(folder) as store:
        assert working.known(store, "sim") == {"f": {1: 100, 2: 160}, "g": {1: 7}}
        assert working.known(store, "cuda X") == {"f": {1: 900}}
        assert working.known(store, "mps") == {}


def test_what_was_learnt_can_be_forgotten_and_is_no_result(folder, sample):
    with Store(folder) as store:
        before = list(store.dump())
    with Store(folder, write=True) as store:
        working.learn(store, "sim", [("f", 1, 100)])
        assert list(store.dump()) == before
        assert store.check() == []
        assert working.forget(store) == 1
        assert working.known(store, "sim") == {}
