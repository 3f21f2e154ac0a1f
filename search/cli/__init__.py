"""The command line: each verb reads its options, makes one call and prints.

Imports everything; only the console script imports it.
"""
