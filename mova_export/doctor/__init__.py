"""What this machine and its libraries can do, for a bundle or for any: `mova doctor`.

`look.py` asks everything, whatever is broken; `findings.py` is what was found, `advice.py` the command to type next.
"""
