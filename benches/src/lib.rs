//! Nothing: the benches are under `benches/`. See `docs/benchmarks.md`.
