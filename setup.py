"""All there is to say stands in setup.cfg; tools that look for a setup.py find one."""

from setuptools import setup

setup()
