"""Who folds which shard, and what is watched beside the fold."""
