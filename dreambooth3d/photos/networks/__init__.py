"""Small networks of our own that look at a photo set as a whole: where the subject is, and from where it is seen."""
