"""Who is in the cluster: the map of nodes and partitions, and the placement of one on the other."""
