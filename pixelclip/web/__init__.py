"""A page in the browser to try words on pictures; ``page.py`` puts the parts together."""
