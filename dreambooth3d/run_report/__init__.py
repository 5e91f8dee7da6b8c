"""Pages about runs for people who were not there: one run as a report, and several side by side."""
