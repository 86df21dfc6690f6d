"""What is adapted: the bundled GridLM, any transformers causal LM, LoRA, pretraining."""
