"""The versions of each model: found, checked, loaded, changed and ended while the server answers."""
