"""The web page over a View."""

from energon_datasets.viewer.app import make_app

__all__ = ["make_app"]
