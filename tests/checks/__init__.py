"""What must hold once everything has come to rest, over plain lists: the same in a simulation and on real wires."""
