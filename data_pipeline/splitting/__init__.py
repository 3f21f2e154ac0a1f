"""Which files are images of which class, and which split each image belongs to."""
