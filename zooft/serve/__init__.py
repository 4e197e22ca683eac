"""Exported files behind HTTP: Open Inference Protocol v2, image endpoints and a page; never torch."""
