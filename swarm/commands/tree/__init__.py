"""The commands with their options, one file a branch; `swarm.cli` names the branches and loads the one that was typed.

A file here says what can be typed. What a command does stands in `swarm.commands`, and is imported when it runs.
"""
