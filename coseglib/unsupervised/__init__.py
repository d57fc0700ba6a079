"""Learning without masks, on the very group that is to be segmented.

configuration  `OnlineConfig`, `load_online`; profiles/ holds the named ones; groups of files, or by their names
learner        `co_segment`, `LearningJob`: one group in memory while a generator learns on it;
               `learn`, `train_on_group`: kept with a card
scores         label maps whose labels have no names, scored; baselines without a network
floors         the frozen network's features, clustered or factored: what the system has to beat
"""
