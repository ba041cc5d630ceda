"""Settings for all tests."""

from hypothesis import settings

# A busy machine is no defect: what a test takes is limited by pytest-timeout alone.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
