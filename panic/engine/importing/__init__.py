"""Trajectories made elsewhere become an experiment: read (`rows`), checked (`trajectories`), written.

options = ImportOptions(path=Path("chains.jsonl"))
write_trajectories(store, "chains", read_trajectories(options), options)
"""
