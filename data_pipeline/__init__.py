"""From a folder, an archive, a URL or a name to uint8 images in three splits.

`sources` finds the images, `splitting` decides which split each belongs to, `images` decodes and
draws them. Nothing here knows Keras, Ray or `search`.
"""
