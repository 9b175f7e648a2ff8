//! The per-session engine, the supervisor, the start table, mirror, lease and local state.
