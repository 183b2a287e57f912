"""Task recognition: which task an image belongs to, and whether it is known at all."""
