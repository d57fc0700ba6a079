"""What models score on whole data sets: tables, benchmarks beside the papers, the cards of checkpoints.

tables     `coseg evaluate`: a model on a data set          kept     rows that outlive a killed run
benchmark  of several systems, beside the papers' figures   systems  checkpoints and floors, loaded
shipping   from a run to a checkpoint, its card measured    cards    what cards say, costs and logs too
causes     what each part of the workbook's variant of several classes is worth
choosing   which of several models is best on the photographs that choose
own_protocols  each checkpoint under its paper's own protocols
self_test  do shipped checkpoints answer here as where they were made
"""
