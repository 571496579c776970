//! Scripted model servers for tests: Ollama and OpenAI dialects, chunks released on command.
