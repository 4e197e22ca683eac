"""TensorBoard: each run's curves and figures, below the folder that ZOOFT_TENSORBOARD names; without it, nothing.

A variable and no option, since where curves lie is a matter of the machine and not of the run. What is logged has no
path in it and no sample: options, losses, metrics, figures with their intervals, and how the run ended.
"""

from zooft_tensorboard.tracker import Tracker

plugin = Tracker()
