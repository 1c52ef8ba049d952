"""
The viewer and console pages: plain files under `static/`, served as they are by `engine/http/pages.py`.

ES modules and style sheets only: no build step, no library, no address of another host, and no markup made from what
a person typed. No Python lives here.
"""
