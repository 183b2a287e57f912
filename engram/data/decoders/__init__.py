"""Numbered ways from an encoded image to pixels; `docs/upgrading.md` says in what they differ."""
