"""Labelled images: archives, decoding, splitting, augmentation and the choice of exemplars."""
