"""Labels from a table beside a folder of images."""
