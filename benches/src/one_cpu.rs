//! Where processes take turns on one CPU, the scheduler does not decide anew what is measured.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// While this lives, this thread and the processes that it starts share one CPU.
#[derive(Debug)]
pub struct OneCpu {
    before: CpuSet,
}

impl OneCpu {
    /// From now on.
    #[must_use = "it holds until it is dropped"]
    pub fn pin() -> Self {
        Self::pin_to(0)
    }

    /// To one of those that this thread may use: the first one, or the second one, if there are two.
    #[must_use = "it holds until it is dropped"]
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
