"""Masks for any photographs: segmenters behind one interface, and what is made with them."""
