"""A web page on which words are tried on images; ``page.py`` connects its parts."""
