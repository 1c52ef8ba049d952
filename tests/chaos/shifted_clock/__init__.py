"""On the path of a node whose clock is to be wrong; see `sitecustomize.py`."""
