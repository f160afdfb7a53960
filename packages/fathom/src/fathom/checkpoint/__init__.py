"""Checkpoints: folders in the official DeepSeek-V3 layout, with a run's state inside."""

from fathom.checkpoint.find import latest as latest
from fathom.checkpoint.find import prune as prune
from fathom.checkpoint.find import resolve as resolve
from fathom.checkpoint.load import load_checkpoint as load_checkpoint
from fathom.checkpoint.load import load_model as load_model
from fathom.checkpoint.load import load_model_state as load_model_state
from fathom.checkpoint.save import save_checkpoint as save_checkpoint
from fathom.checkpoint.save import save_model as save_model
from fathom.checkpoint.tokenizer_files import check_tokenizer as check_tokenizer
from fathom.checkpoint.training import TrainingState as TrainingState
