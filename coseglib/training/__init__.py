"""Training from masks, one loop for all methods.

configuration  `TrainConfig`, `load_profile`: what decides a result; profiles/ holds the named ones
loop           `train`: a run's folder; optimiser, schedule of the learning rates, moving average of the weights
state          what a run keeps to go on with: saved whole, checked, restored; log.csv
photographs    those that a configuration trains on, in batches, and those that it is validated on
runs           trainings in folders, made unless they are there, in processes of their own; costs: what they took
"""
