"""Shared by formats of typed columns: conversion to the contract, and trying files that crash a process."""
