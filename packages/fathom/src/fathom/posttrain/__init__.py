"""After pre-training: supervised fine-tuning on conversations."""
