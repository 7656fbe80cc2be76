"""A web page on which words are tried on images; ``page.py`` puts its parts together."""
