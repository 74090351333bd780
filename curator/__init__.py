"""Raw footage in, judged and encoded clips out. Importable on a laptop: no megatron, and Ray only in `runners.py`."""
