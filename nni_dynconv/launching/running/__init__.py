"""The processes of an experiment: started as long as it takes, watched, ended together, taken over."""
