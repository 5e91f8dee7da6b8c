"""The family of systems that make an asset from a prompt alone, on the same prompts in the toybox."""
