"""What a search is: one frozen `SearchConfig` from search.yaml, overrides and options.

Of search it imports the vocabulary only (`errors`, `objective`).
"""
