"""How good predictions are: figures with intervals, by sample, group and subgroup."""
