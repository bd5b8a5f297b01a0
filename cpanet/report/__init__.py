"""Tables and report page of finished or running sweeps: ``python -m cpanet.report SWEEP_DIR…``."""
