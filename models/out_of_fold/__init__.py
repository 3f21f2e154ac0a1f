"""What heads say of images that they were solved without, and what follows from it."""
