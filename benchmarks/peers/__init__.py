"""What `compare_peers.py` is made of, and the peers themselves: ``tool_*.py``, each run in its own environment."""
