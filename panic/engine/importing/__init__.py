"""Trajectories made elsewhere become an experiment: read (`rows`), checked (`trajectories`), written.

write_import(store, read_import(ImportOptions(name="chains", path=Path("chains.jsonl"))))
"""
