"""ZenML pipelines: the wiring, and nothing else."""
