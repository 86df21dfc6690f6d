"""Many tasks, hours, devices, faults. Imports torch only inside the worker process."""
