"""The paper in a box: its figures and tables, with models small enough to train on a laptop.

`python -m lab` lists what there is.
"""
