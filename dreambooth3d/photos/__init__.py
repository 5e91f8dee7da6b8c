"""Photo sets: reading, checking and describing them, their DVC identity, and the download of four public subjects."""
