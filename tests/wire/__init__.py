"""
Golden bytes: every message in both codecs, and frames of the past that must still decode.

Files under `golden/` follow the code and are reviewed as a change of the wire; files under `frozen/` never change.
"""
