"""Judge a model on folders of PNG frames: what the evaluation scripts share.

``scenes`` finds, reads and writes the frames, ``clips`` makes VapourSynth clips of them,
``protocol`` cuts them into groups, ``scoring`` takes them through a model and measures, ``report``
holds the tables and what the scripts' command lines have in common.
"""

__all__ = ["EvaluationError"]


class EvaluationError(ValueError):
    """What was asked for cannot be evaluated; the message is one sentence for the user."""
