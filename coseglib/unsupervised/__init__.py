"""Learning without masks, on the very group that is to be segmented.

configuration  `OnlineConfig`, `load_online`; profiles/ holds the named ones; groups of files, or by their names
learner        `co_segment` a group; `learn`, `train_on_group`: kept with a card
jobs           `LearningJob`: one group in memory while a generator learns on it, as the thesis does
clustered      `ClusterJob`: the same for the workbook's generator, on frozen features and from their clusters
trust          is there anything in what was learned, and how many classes are there?
scores         label maps whose labels have no names, scored; baselines without a network
floors         the frozen network's features, clustered or factored: what the system has to beat
"""
