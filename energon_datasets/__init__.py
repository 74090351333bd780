"""The dataset: what lies on disk, what the viewer shows and what training consumes, from one definition."""
