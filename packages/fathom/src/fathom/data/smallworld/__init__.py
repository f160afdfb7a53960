"""Our own seeded world of little stories: pre-training text, chats and prompts from one source of truth."""

from fathom.data.smallworld.prompt import Prompt as Prompt
from fathom.data.smallworld.prompt import grade as grade
from fathom.data.smallworld.stream import chats as chats
from fathom.data.smallworld.stream import documents as documents
from fathom.data.smallworld.stream import prompts as prompts
from fathom.data.smallworld.world import TRIPLES as TRIPLES
from fathom.data.smallworld.world import WORLDS as WORLDS
