"""The network zoo: deterministic builders of float PyTorch networks.

`NETWORKS` names them; `build_network(name, seed)` returns one, untrained. The registry imports no
PyTorch, the builders do.
"""

from lepton.models.zoo.registry import NETWORKS, Feed, Network, Task, build_network, network_named

__all__ = ["NETWORKS", "Feed", "Network", "Task", "build_network", "network_named"]
