//! Restricts a bench to one CPU, so that the scheduler's choice of CPUs does not change the result.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps this thread and the processes that it starts on one CPU while it lives.
#[derive(Debug)]
pub struct OneCpu {
    before: CpuSet,
}

impl OneCpu {
    /// Restricts this thread to the first CPU that it may use.
    #[must_use = "dropping it lifts the restriction"]
    pub fn pin() -> Self {
        Self::pin_to(0)
    }

    /// Restricts this thread to the CPU at index `number` of those that it may use, modulo their
    /// count.
    #[must_use = "dropping it lifts the restriction"]
    pub fn pin_to(number: usize) -> Self {
        let before = sched_getaffinity(None).unwrap();
        let usable: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&cpu| before.is_set(cpu)).collect();
        let mut one = CpuSet::new();
        one.set(usable[number % usable.len()]);
        sched_setaffinity(None, &one).unwrap();
        Self { before }
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.before).unwrap();
    }
}
