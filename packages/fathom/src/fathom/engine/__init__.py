"""The inference engine: exact, batched, speculative."""

from fathom.config.engine import EngineConfig as EngineConfig
from fathom.engine.engine import Engine as Engine
from fathom.engine.request import BusyError as BusyError
from fathom.engine.request import Completion as Completion
from fathom.engine.request import Delta as Delta
from fathom.engine.request import Request as Request
from fathom.engine.request import RequestError as RequestError
from fathom.engine.request import Result as Result
from fathom.engine.request import SamplingParams as SamplingParams
from fathom.engine.stream import Streams as Streams
