"""An OpenAI-compatible server and a chat page: HTTP in one process, the engine in another."""
