"""Does this machine compute what it should? ``python -m cpanet.doctor`` says so, or what to do.

``reference`` holds every operator in numpy, ``operators`` compares Jittor with it, ``learning`` overfits one
episode, ``checks`` runs them, ``__main__`` prints.
"""
