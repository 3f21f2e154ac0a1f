"""What trials share and is made once: pixels, features, backbones.

Of search it imports cluster, storage and config.
"""
