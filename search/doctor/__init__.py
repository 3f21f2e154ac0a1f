"""What a search needs of this machine, checked before there is one.

Of search it imports cluster and config; imported by the command line alone.
"""
