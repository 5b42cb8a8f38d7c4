from setuptools import setup  # a shim for Beam's --setup_file; all settings are in pyproject.toml

setup()
