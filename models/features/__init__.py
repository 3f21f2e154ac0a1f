"""Features of augmented views of images under a frozen backbone."""
