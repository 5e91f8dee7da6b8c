"""Configuration: one frozen model per step, one file per room of the library."""
