"""What a study asks: the study file, the arms that follow from it, and where in the YAML each key stands."""
