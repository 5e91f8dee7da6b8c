"""The benchmark of things that nobody here modelled: photos of real meshes, with true masks, cameras and views.

Usage: python -m benchmarks.real FOLDER [--quick] [--kinds casual] [--subjects cow] [--methods naive] [--seeds 0 1]
"""
