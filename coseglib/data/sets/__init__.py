"""A loader a data set: files in the published layout -> groups, or photographs with label maps of all their classes."""
