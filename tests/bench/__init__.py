"""What CareRelay's high-volume paths do, as ratios to a floor and to peers within one run: ``make bench``."""
