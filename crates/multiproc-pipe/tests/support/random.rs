//! Reproducible random numbers.

use std::env;
use std::hash::{BuildHasher, Hasher, RandomState};

/// Marsaglia's xorshift64* generator.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from((self.next() >> 32) % u64::try_from(bound).unwrap()).unwrap()
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// Returns a generator seeded with `MULTIPROC_SEED` from the environment, or with a new seed.
/// Prints the seed, so that a failure can be reproduced.
pub(crate) fn seed() -> u64 {
    let given = env::var("MULTIPROC_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("repeat with MULTIPROC_SEED={seed}");
    seed
}
