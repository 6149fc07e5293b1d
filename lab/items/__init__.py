"""One module per figure or table of the paper.

An item's `plan(quick)` returns the runs that it needs next, given those that are there; its
`report(quick)` writes JSON and a picture into `lab/results` and returns the lines to print.
"""
