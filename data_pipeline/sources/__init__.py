"""What `--data` may be: folders, archives, URLs, object stores, built-in samples."""
