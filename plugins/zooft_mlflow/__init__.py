"""MLflow: a run there for each run here, in the experiment that ZOOFT_MLFLOW names; without it, nothing.

Where that is, MLflow's own MLFLOW_TRACKING_URI sets. A variable and no option, since where runs are tracked is a matter
of the machine and not of the run; and one of our own, since MLFLOW_TRACKING_URI may be set for other work. What is sent
has no path in it, no user's name and no sample: options, losses, metrics, figures with their intervals, and how the run
ended.
"""

from zooft_mlflow.tracker import Tracker

plugin = Tracker()
