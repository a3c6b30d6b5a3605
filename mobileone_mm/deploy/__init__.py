"""A trained model to a deploy pair: checkpoint and config of the fused model, with a proof."""
