"""Compile what is compiled, so that no test process has to: run beside the tests of servers, which wait.

Each process that needs a compiled function before it is in the cache compiles it anew: minutes of work
where several do.
"""

from __future__ import annotations

from survey_ml.measure import measure_image
from survey_ml.simulation.sky import Recipe, simulate_sky

if __name__ == "__main__":
    sky = simulate_sky(Recipe(640, 5, blank=True))
    measure_image(sky.image, sky.field, {"inverted": True})
