"""The control tokens of DeepSeek-V3: short names here, the released strings in every file and prompt.

Bars are U+FF5C and spaces are U+2581, except in <|EOT|>, which is plain ASCII; look-alikes are ordinary text.
"""

from __future__ import annotations

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
FIM_HOLE = "<｜fim▁hole｜>"
FIM_BEGIN = "<｜fim▁begin｜>"
FIM_END = "<｜fim▁end｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
EOT = "<|EOT|>"
CALLS_BEGIN = "<｜tool▁calls▁begin｜>"
CALLS_END = "<｜tool▁calls▁end｜>"
CALL_BEGIN = "<｜tool▁call▁begin｜>"
CALL_END = "<｜tool▁call▁end｜>"
OUTPUTS_BEGIN = "<｜tool▁outputs▁begin｜>"
OUTPUTS_END = "<｜tool▁outputs▁end｜>"
OUTPUT_BEGIN = "<｜tool▁output▁begin｜>"
OUTPUT_END = "<｜tool▁output▁end｜>"
TOOL_SEP = "<｜tool▁sep｜>"

# The first three open the vocabulary (ids 0, 1, 2) and the others close it, as in the released tokenizer.
FIRST = {"bos": BOS, "eos": EOS, "pad": PAD}
LAST = {
    "fim_hole": FIM_HOLE,
    "fim_begin": FIM_BEGIN,
    "fim_end": FIM_END,
    "user": USER,
    "assistant": ASSISTANT,
    "eot": EOT,
    "tool_calls_begin": CALLS_BEGIN,
    "tool_calls_end": CALLS_END,
    "tool_call_begin": CALL_BEGIN,
    "tool_call_end": CALL_END,
    "tool_outputs_begin": OUTPUTS_BEGIN,
    "tool_outputs_end": OUTPUTS_END,
    "tool_output_begin": OUTPUT_BEGIN,
    "tool_output_end": OUTPUT_END,
    "tool_sep": TOOL_SEP,
}
SPECIALS = FIRST | LAST
