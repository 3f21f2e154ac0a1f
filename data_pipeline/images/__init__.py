"""Image files to uint8 arrays, kept on disk between searches, and pictures of them."""
