"""ZenML's Kubeflow Pipelines orchestrator, with pods as configured: see docs/kubeflow.md."""
