"""Architecture families: one file for each."""
