"""The control API: what operators ask of the cluster. `api.py` is the actor, the other files decide without waiting."""
