"""What comes out of a search: leaderboard, choice, scoring, test ledger, card, export, predict.

Of search it imports storage.
"""
