"""Documents and decisions of notifications; pure.

``visit`` plans what a visit wants said, ``recipient`` knows how a person may be reached, ``delivery`` chooses when and
how one message goes and what became of it, ``stray`` keeps replies of strangers. ``window`` and ``intents`` are the
arithmetic of permitted hours and the reading of replies.
"""
