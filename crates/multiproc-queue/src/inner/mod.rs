//! What all handles of a queue share: the region, the ends of the lane, and the conversion between
//! values and bytes.

mod detached;
mod ends;
mod get;
mod put;
mod put_value;
mod tasks;
mod wire;

use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use multiproc_shm::Deadline;

pub(crate) use self::get::GetFailure;
pub(crate) use self::put::PutFailure;
use crate::engine::joinable::Hints;
use crate::engine::letters::Seen;
use crate::engine::pacing::Pace;
use crate::engine::ring::Ring;
use crate::fd_lane::{self, End, Role};
use crate::memory::{Store, TaskLimits};

/// The maximum time that `try_put` and `try_get` wait for a lock of the ring. A running process
/// holds it for less than a microsecond, so after this time its owner is stopped.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// The same for a caller that waits for several things, and only briefly for each.
pub(crate) const MOMENT: Duration = Duration::from_millis(10);

/// The maximum number of items per critical section.
const BATCH: usize = 128;

/// The number of bytes after which a critical section takes no more items.
const BATCH_BYTES: usize = 64 * 1024;

/// See the module's documentation. It is public because the handles dereference to it: see the
/// module `put_value`.
pub struct Inner<T> {
    pub(crate) store: Store,
    /// `None` if this handle does not put, or was closed.
    ///
    /// This is not a mutex: if a thread held one during a fork(2), it would stay locked in the
    /// child.
    producer: ArcSwapOption<End>,
    /// Whether `producer` is `None`. Reading this is cheaper.
    is_closed: AtomicBool,
    /// `None` if this handle does not get.
    pub(crate) consumer: Option<Arc<End>>,
    /// The number of closed handles of the other side at the last check.
    closed_consumers: AtomicU32,
    closed_producers: AtomicU32,
    /// The same when it was last determined whether putting has ended, and in bit 32 the answer. At
    /// first, a number that no counter has.
    puts_ended: AtomicU64,
    /// What this handle last saw of the tasks.
    pub(crate) hints: Hints,
    /// The dead letters that were returned through this handle, and those that `wait` has reported.
    pub(crate) letters_seen: ArcSwapOption<Seen>,
    pub(crate) letters_reported: ArcSwapOption<Seen>,
    /// The time of the last search for tasks of dead members, in ms.
    pub(crate) reclaimed_at: AtomicU64,
    /// The number of items that were put, for periodic checks. Updates may be lost.
    puts: AtomicU32,
    /// Whether the type was checked: its items can be got.
    pub(crate) is_type_checked: AtomicBool,
    put_pace: Pace,
    get_pace: Pace,
    name: Option<Arc<str>>,
    items: PhantomData<fn(T) -> T>,
}

/// How long an operation waits.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    /// Not at all.
    Now,
    Deadline(Deadline),
}

impl Wait {
    pub(crate) const FOREVER: Self = Self::Deadline(Deadline::NEVER);

    pub(crate) fn for_at_most(timeout: Duration) -> Self {
        Self::Deadline(Deadline::after(timeout))
    }

    pub(crate) fn until(deadline: Instant) -> Self {
        Self::Deadline(Deadline::at(deadline))
    }
}

/// Panics. For an operation without a deadline that failed without a reason, which cannot happen.
#[cold]
pub(crate) fn only_a_deadline_gives_up() -> ! {
    unreachable!("only a deadline gives up")
}

impl<T> Inner<T> {
    pub(crate) fn create(
        name: Option<&str>,
        capacity: Option<usize>,
        max_bytes: usize,
        tasks: Option<TaskLimits>,
    ) -> io::Result<Self> {
        let store = Store::create(name.unwrap_or(""), capacity, max_bytes, tasks)?;
        let (producer, consumer) = fd_lane::pair()?;
        let end = |socket, role| End::new(socket, role, store.region.clone());
        let producer = end(producer, Role::Producer)?;
        let consumer = end(consumer, Role::Consumer)?;
        let consumer = match tasks {
            Some(_) => consumer.with_claim(store.region.claim()?)?,
            None => consumer,
        };
        let (producer, consumer) = (Some(Arc::new(producer)), Some(Arc::new(consumer)));
        Ok(Self::over(store, producer, consumer, name.map(Arc::from)))
    }

    fn over(
        store: Store,
        producer: Option<Arc<End>>,
        consumer: Option<Arc<End>>,
        name: Option<Arc<str>>,
    ) -> Self {
        let config = &store.region.control().config;
        config.fences.join();
        // One less, so that the first call checks.
        let before = |closed: &AtomicU32| closed.load(Ordering::Relaxed).wrapping_sub(1).into();
        let closed_consumers = before(&config.closed_consumers);
        let closed_producers = before(&config.closed_producers);
        Self {
            store,
            is_closed: AtomicBool::new(producer.is_none()),
            producer: ArcSwapOption::new(producer),
            consumer,
            closed_consumers,
            closed_producers,
            puts_ended: AtomicU64::new(u64::MAX),
            hints: Hints::default(),
            letters_seen: ArcSwapOption::empty(),
            letters_reported: ArcSwapOption::empty(),
            reclaimed_at: AtomicU64::new(0),
            puts: AtomicU32::new(0),
            is_type_checked: AtomicBool::new(false),
            put_pace: Pace::default(),
            get_pace: Pace::default(),
            name,
            items: PhantomData,
        }
    }

    /// Returns another handle of the same queue. It has those of the requested ends that this one
    /// has.
    pub(crate) fn handle<U>(&self, puts: bool, gets: bool) -> Inner<U> {
        let producer = self.producer_end().filter(|_| puts);
        let consumer = self.consumer.clone().filter(|_| gets);
        Inner::over(self.store.clone(), producer, consumer, self.name.clone())
    }

    fn producer_end(&self) -> Option<Arc<End>> {
        self.producer.load_full()
    }

    /// Returns the rings as this process sees them.
    #[inline]
    pub(crate) fn ring(&self) -> Ring<'_, Store> {
        Ring {
            control: self.store.region.control(),
            limits: self.store.limits,
            hot: self.store.hot(),
            puts: &self.put_pace,
            gets: &self.get_pace,
            members: &self.store,
        }
    }

    /// Returns the number of items that can be got.
    pub(crate) fn len(&self) -> usize {
        self.discard_unreachable();
        self.gettable_len()
    }

    fn gettable_len(&self) -> usize {
        match self.store.tasks {
            None => self.ring_len(),
            Some(_) => self.tasks_len(),
        }
    }

    /// Returns the number of items that count towards the capacity. Tasks that were put back do
    /// not.
    pub(crate) fn items(&self) -> usize {
        self.discard_unreachable();
        self.ring_len()
    }

    fn ring_len(&self) -> usize {
        usize::try_from(self.ring().len()).unwrap_or(usize::MAX)
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}
