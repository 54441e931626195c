"""Several networks under load on one set of devices: what runs next, and where."""

from lepton.runtime.serving.execute import Executor
from lepton.runtime.serving.load import Fault, Request, Stage, Tenant, Way, arrivals
from lepton.runtime.serving.policies import Dynamic, Policy, Start, Static, View, Waiting
from lepton.runtime.serving.service import Completed, Execute, Served, serve
from lepton.runtime.serving.ways import plans_of, ways_of

__all__ = ["Completed", "Dynamic", "Execute", "Executor", "Fault", "Policy", "Request", "Served"]
__all__ += ["Stage", "Start", "Static", "Tenant", "View", "Waiting", "Way", "arrivals", "plans_of"]
__all__ += ["serve", "ways_of"]
