"""A loaded model as the terminal sees it: prompt in, text out piece by piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fathom.config.errors import need

if TYPE_CHECKING:
    import torch

    from fathom.data.tokenizer import Tokenizer
    from fathom.model.generate import Sampling
    from fathom.model.transformer import Transformer


@dataclass
class Speaker:
    """A model, its tokenizer and how tokens are drawn."""

    model: Transformer
    tokenizer: Tokenizer
    sampling: Sampling
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)  # drawn by the last `speak`, without the end token

    @classmethod
    def load(cls, folder: Path, *, temperature: float, top_p: float, seed: int) -> Speaker:
        """Read a run, a checkpoint or an official folder. DataError or ConfigError in one line."""
        import torch

        from fathom.checkpoint.find import resolve
        from fathom.checkpoint.load import load_model
        from fathom.checkpoint.tokenizer_files import check_tokenizer
        from fathom.data.tokenizer import Tokenizer
        from fathom.model.generate import Sampling

        sampling = Sampling(temperature=temperature, top_p=top_p)
        need(seed >= 0, f"--seed {seed} is below 0", fix="give 0 or more")
        place = resolve(folder)
        model = load_model(place, "cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = Tokenizer.load(place)
        check_tokenizer(tokenizer.size, model.config)
        generator = torch.Generator(model.embed.weight.device).manual_seed(seed)
        return cls(model, tokenizer, sampling, generator)

    def room(self, prompt: list[int]) -> int:
        """Tokens that fit behind `prompt`."""
        return self.model.config.max_positions - len(prompt)

    def speak(self, prompt: list[int], max_tokens: int) -> Iterator[str]:
        """Yield the answer as it comes, in whole characters; stops at the end token."""
        import torch

        from fathom.data.tokenizer import TextStream
        from fathom.model.generate import generate

        self.tokens = []
        stream = TextStream(self.tokenizer)
        prompt_BT = torch.tensor([prompt], device=self.model.embed.weight.device)
        for token_B in generate(
            self.model,
            prompt_BT,
            max_tokens=max_tokens,
            sampling=self.sampling,
            generator=self.generator,
            tokens=self.tokenizer.size,
        ):
            token = int(token_B)
            if token == self.tokenizer.eos:
                break
            self.tokens.append(token)
            if text := stream.push(token):
                yield text
        if text := stream.end():
            yield text
