class ArrowLines:
    def __init__(self, settings): pass
    def take(self, lines):
        import numpy as np
        return np.array([], np.int64), None
