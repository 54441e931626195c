"""Devices that run the units of a network: the CPU, simulated NPUs, and described ones."""

from lepton.runtime.devices.choice import DeviceOptions, choose_devices
from lepton.runtime.devices.cpu import CpuDevice
from lepton.runtime.devices.described import DescribedDevice, Description, load_description
from lepton.runtime.devices.gpu import GpuDevice
from lepton.runtime.devices.npu import NpuDevice, NpuRegion
from lepton.runtime.devices.protocol import (
    Arrays,
    Clock,
    Port,
    Prepared,
    Progress,
    Ran,
    RuntimeDevice,
    silent,
)

__all__ = ["Arrays", "Clock", "CpuDevice", "DescribedDevice", "Description", "DeviceOptions"]
__all__ += ["GpuDevice"]
__all__ += ["NpuDevice", "NpuRegion", "Port", "Prepared", "Progress", "Ran", "RuntimeDevice"]
__all__ += ["choose_devices", "load_description", "silent"]
