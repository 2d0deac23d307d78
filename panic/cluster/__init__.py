"""Experiments and trainings as jobs of a cluster: what is written, submitted and looked at."""
