"""Text to rows of tokens: sources, tokenizer, chat template, shards, packing (report section 4.1).

The loader stands apart, in `fathom.data.loader`, because it is the part that needs torch.
"""

from fathom.data.build import build_corpus as build_corpus
from fathom.data.chat import encode_chat as encode_chat
from fathom.data.chat import render as render
from fathom.data.corpus import CorpusMeta as CorpusMeta
from fathom.data.corpus import CorpusReport as CorpusReport
from fathom.data.sources import Document as Document
from fathom.data.sources import open_source as open_source
from fathom.data.tokenizer import TextStream as TextStream
from fathom.data.tokenizer import Tokenizer as Tokenizer
