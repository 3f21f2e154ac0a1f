"""What a search needs of this machine, checked before there is one.

May import cluster, config and storage; imported by the command line alone.
"""
