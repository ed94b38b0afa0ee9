//! Detached tasks without receipts, whose completions are counted.

use std::mem;
use std::sync::{Mutex, OnceLock, PoisonError};

use multiproc_shm::members::{MemberId, Members};

use super::Inner;
use crate::engine::slot::Slot;

/// The tasks that a process has detached without receipts, through any of its handles of a queue.
///
/// A call of `task_done` does not name a task. So the calls are counted, and the tasks are
/// completed together once there was one call for each. If the process dies before that, all of
/// them are delivered again.
struct Detached {
    /// The member that has them. A forked child has a copy of this value, but is another member.
    member: MemberId,
    tasks: Mutex<Counted>,
    /// The tasks of a child that was forked from this process. They have a lock of their own,
    /// because a thread that the child does not have may have held the other one.
    of_child: OnceLock<Box<Self>>,
}

#[derive(Default)]
struct Counted {
    slots: Vec<Slot>,
    /// The number of calls of `task_done`, which is less than the number of slots.
    done: usize,
}

impl Detached {
    fn new(member: MemberId) -> Self {
        Self { member, tasks: Mutex::default(), of_child: OnceLock::new() }
    }

    fn of(&self, member: MemberId) -> &Mutex<Counted> {
        if self.member == member {
            return &self.tasks;
        }
        self.of_child.get_or_init(|| Box::new(Self::new(member))).of(member)
    }
}

impl<T> Inner<T> {
    fn with_detached<R>(&self, act: impl FnOnce(&mut Counted) -> R) -> R {
        let region = &self.store.region;
        let member = region.me();
        let tasks = region.local(|| Detached::new(member)).of(member);
        act(&mut tasks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Detaches a task without a receipt.
    pub(crate) fn detach(&self, slot: Slot) {
        self.with_detached(|counted| {
            if self.work().tasks().detach(slot) {
                counted.slots.push(slot);
            }
        });
    }

    /// Counts a call of `task_done`. Returns `false` if there were more calls than tasks.
    pub(crate) fn detached_done(&self) -> bool {
        let slots = self.with_detached(|counted| {
            let left = counted.slots.len().checked_sub(counted.done + 1)?;
            counted.done += 1;
            Some(if left == 0 { mem::take(counted).slots } else { Vec::new() })
        });
        let Some(slots) = slots else { return false };
        if !slots.is_empty() {
            self.work().ack_detached(&slots);
        }
        true
    }
}
