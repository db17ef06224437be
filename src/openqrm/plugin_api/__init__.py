"""All that a plug-in may import, beside `openqrm.domain`.

A plug-in declares (types, operations, hooks, services) and plans (pure functions that return steps). It never acts:
steps are stored and then executed by the engine.
"""
