"""From a folder, an archive, a URL or a name to uint8 images in three splits.

`sources` finds the images, `manifest` decides which split each belongs to, `images` decodes them,
`batches` feeds them by index and `preview` draws them. Nothing here knows Keras or Ray.
"""
