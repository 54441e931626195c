"""The runtime: devices, host regions, execution, comparison with the golden libraries."""
