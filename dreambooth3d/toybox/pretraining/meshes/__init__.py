"""Models of things that others made, from Debian's archive: fetched, read, rendered and packed as training data."""
