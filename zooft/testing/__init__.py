"""The conformance kit: what a plugin's author runs to know that the plugin meets its contract.

    from zooft import testing

    def test_family(tmp_path):
        testing.check_family(my_plugin.FAMILY, "my_model", folder=tmp_path)

Each check raises ConformanceError with what was expected and what was found, and names hook and field where one is at
fault.
"""

from zooft.errors import ConformanceError
from zooft.testing.deployment import check_export, check_round_trip
from zooft.testing.family import check_family
from zooft.testing.freezer import check_freezer
from zooft.testing.freezing import check_freezing
from zooft.testing.head import check_head
from zooft.testing.listener import check_listener
from zooft.testing.plugin import check_plugin
from zooft.testing.problem import check_problem
from zooft.testing.source import check_source
from zooft.testing.stages import check_stages
from zooft.testing.task import check_task
from zooft.testing.weights import check_weights

__all__ = [
    "ConformanceError",
    "check_export",
    "check_family",
    "check_freezer",
    "check_freezing",
    "check_head",
    "check_listener",
    "check_plugin",
    "check_problem",
    "check_round_trip",
    "check_source",
    "check_stages",
    "check_task",
    "check_weights",
]
