"""Numbers of others, beside which the report puts ours."""

DINOSAUR = {
    ("williamson2", 42, "float64", 5): 2.6e-14,
    ("williamson2", 85, "float64", 5): 9e-13,
    ("williamson2", 42, "float32", 5): 3.3e-7,
    ("williamson2", 85, "float32", 5): 6.5e-7,
    ("williamson5", 42, "float64", 5): 3.1e-4,
    ("williamson5", 42, "float64", 10): 3.8e-4,
    ("williamson5", 42, "float64", 15): 5.7e-4,
    ("galewsky_balanced", 42, "float64", 5): 3.1e-5,
    ("galewsky_balanced", 85, "float64", 5): 2.9e-7,
}
"""l2 of the height by (case, truncation, precision, day): dinosaur 1.5.1, measured; case 5 against its own T85."""
JAKOB_CHIEN = {("williamson5", 42, 15): 5e-4}
"""l2 of the height, read off: Jakob-Chien, Hack and Williamson (1995), doi:10.1006/jcph.1995.1125; against T213."""
FACTS = {
    "depth": "3733 to 5954 m (dinosaur)",
    "linf": "3.0e-3 to 3.4e-3, T42 against T85 (dinosaur)",
    "mass": "exact (dinosaur)",
    "supremum": "2.4291e-8 m⁻¹ s⁻¹ at 49.96 N (dinosaur; the formula without truncation)",
    "speed": "12.195 without divergence (exact)",
}
"""Other numbers, as text."""
