"""Real photographs have no truth: each photo of a set is left out in turn, and compared with the others' asset."""
