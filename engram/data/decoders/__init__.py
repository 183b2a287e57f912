"""Ways from an encoded image to pixels, by their numbers; what differs is listed in `docs/upgrading.md`."""
