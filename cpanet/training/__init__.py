"""Training: the loop over epochs, what a checkpoint keeps of it, the batches and the test episodes it meets.

Its modules start Jittor. The task that sets a run up is ``cpanet.tasks.train``.
"""
