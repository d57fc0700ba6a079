"""Training from masks, one loop for all methods.

configuration  `TrainConfig`, `load_profile`: what decides a result; profiles/ holds the named ones
loop           `train`: a run's folder; photographs in batches and for validation; optimiser, rates, average of weights
tuning         a folder of one's own with masks, and a checkpoint to start from
memory         `kept_memory`: what a step frees stays for the next one, 1.6 times as fast on a CPU
state          what a run keeps to go on with: saved whole, checked, restored; log.csv
classifier     the backbone of drawn scenes, which learns to name them before a system learns from their masks
runs           trainings in folders, made unless they are there, in processes of their own; costs: what they took
"""
