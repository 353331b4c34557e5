"""Studies: a patient's views (stacks and single planes) with their place in the patient."""
