"""Engines that are accessed through a Beam job service."""
