"""intake: who the patient is, how they are covered, and what they need to be reached."""
