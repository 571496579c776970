//! The turn machine and its driver: prompts, budgets, guards, verification.
