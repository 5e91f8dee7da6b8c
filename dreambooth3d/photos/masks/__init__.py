"""Where is the subject in each photo? Masks from what the user brings, from networks, or from smooth backgrounds."""
