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
        let before = sched_getaffinity(None).unwrap();
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|&cpu| before.is_set(cpu)).unwrap());
        sched_setaffinity(None, &one).unwrap();
        Self { before }
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.before).unwrap();
    }
}
