"""Community services in HSDS 3.0 shape, and the hand-off of a patient's need to one of them."""
