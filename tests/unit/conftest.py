from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine is no reason to fail.
settings.register_profile("ginit", deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ginit")
