"""Operators of the database that differ from the CPU, and why."""

KNOWN = {
    "_upsample_bilinear2d_aa": "a private operator whose samples have scales that do not belong to "
    "their sizes: its kernel takes weights by the one and places by the other, and nodes refuse it",
}
