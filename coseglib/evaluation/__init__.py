"""What models score on whole data sets: tables, benchmarks beside the papers, the cards of checkpoints.

tables     `coseg evaluate`: a checkpoint on a data set     multiclass_tables  the same with several classes
benchmark  rows and tables of several systems               systems            checkpoints and floors, loaded
papers     tables beside the papers' figures                kept               rows that outlive a killed run
shipping   from a run to a checkpoint, its card measured    cards              what cards say, costs and logs too
"""
