//! A pool of shared memory for a stream of [`SharedBytes`].

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use multiproc_shm::{Frozen, Segment};

use crate::shared_bytes::SharedBytes;
use multiproc_shm::Deadline;

const PAGE: usize = 4096;

/// A pool of shared memory, for a stream of [`SharedBytes`].
///
/// [`buffer`](Self::buffer) returns memory to fill, and [`freeze`](SharedBuffer::freeze) makes it a
/// [`SharedBytes`] to be sent. The receiver copies it on arrival. The memory is free for the next
/// buffer after that, or when the receiver dies or the message is discarded, if no handle of it is
/// left in this process. No notification is needed: the kernel knows which process has it open.
///
/// A clone is another handle to the same pool. Free memory is returned to the system when the last
/// handle, buffer and `SharedBytes` of the pool is dropped. Receivers keep the last few segments
/// mapped, at most 256 MiB.
///
/// ```
/// use multiproc_pipe::{SharedBytes, SharedPool, duplex};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (left, right) = duplex::<SharedBytes, ()>()?;
/// let pool = SharedPool::new();
/// for frame in 0..10 {
///     let mut buffer = pool.buffer(1024 * 1024)?;
///     buffer.fill(frame);
///     left.send(buffer.freeze())?;
///     assert_eq!(right.recv()?[1000], frame);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Isolation
///
/// A receiver is lent whole segments, including data that earlier buffers left in them. Receivers
/// that must not see each other's data need a pool each.
///
/// # A receiver that does not receive
///
/// `buffer` does not wait for it. Memory that is still lent is not reused, so the pool grows until
/// [`send`](crate::Connection::send) blocks because some hundred messages wait. To limit this,
/// check [`lent`](Self::lent) before requesting another buffer.
#[doc(alias = "memfd_create")]
#[derive(Clone)]
pub struct SharedPool(Arc<Pool>);

struct Pool {
    max_segments: usize,
    max_bytes: usize,
    /// The segments that this process does not use, which may be lent, ordered by their return.
    idle: Mutex<Vec<Frozen>>,
}

/// Configures a [`SharedPool`].
///
/// ```
/// use multiproc_pipe::SharedPool;
///
/// let pool = SharedPool::builder().max_segments(2).build();
/// # drop(pool);
/// ```
#[derive(Debug, Clone)]
#[must_use = "it makes a pool when `build` is called"]
pub struct SharedPoolBuilder {
    max_segments: usize,
    max_bytes: usize,
}

impl SharedPoolBuilder {
    /// Sets how many segments are kept for later buffers. The default is 8.
    pub fn max_segments(mut self, segments: usize) -> Self {
        self.max_segments = segments;
        self
    }

    /// Sets how many bytes are kept for later buffers. The default is 256 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Creates the pool, which allocates no memory until the first buffer.
    #[must_use]
    pub fn build(self) -> SharedPool {
        let Self { max_segments, max_bytes } = self;
        SharedPool(Arc::new(Pool { max_segments, max_bytes, idle: Mutex::default() }))
    }
}

impl SharedPool {
    /// Creates a pool that keeps up to 8 segments of up to 256 MiB in total.
    ///
    /// ```
    /// use multiproc_pipe::SharedPool;
    ///
    /// let pool = SharedPool::new();
    /// assert_eq!(pool.lent(), 0);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder to configure what the pool keeps.
    ///
    /// ```
    /// use multiproc_pipe::SharedPool;
    ///
    /// let pool = SharedPool::builder().max_segments(2).max_bytes(64 << 20).build();
    /// # drop(pool);
    /// ```
    pub fn builder() -> SharedPoolBuilder {
        SharedPoolBuilder { max_segments: 8, max_bytes: 256 * 1024 * 1024 }
    }

    /// Returns memory of `len` bytes to fill. It contains what an earlier buffer of this pool left
    /// there, or zeros.
    ///
    /// # Errors
    ///
    /// If the system has no memory or descriptors left, or `len` is more than a file may have
    /// (RLIMIT_FSIZE).
    ///
    /// ```
    /// use multiproc_pipe::SharedPool;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pool = SharedPool::new();
    /// let mut buffer = pool.buffer(640 * 480)?;
    /// buffer[..4].copy_from_slice(&[1, 2, 3, 4]);
    /// let frame = buffer.freeze();
    /// assert_eq!((frame.len(), &frame[..4]), (640 * 480, &[1, 2, 3, 4][..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn buffer(&self, len: usize) -> io::Result<SharedBuffer> {
        let segment = self.0.take(size_for(len)?)?;
        Ok(SharedBuffer { segment: Some(segment), len, pool: Arc::clone(&self.0) })
    }

    /// Returns the number of segments that were sent and have not been received so far.
    ///
    /// ```
    /// use multiproc_pipe::{SharedBytes, SharedPool, duplex};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (left, right) = duplex::<SharedBytes, ()>()?;
    /// let pool = SharedPool::new();
    /// left.send(pool.buffer(1000)?.freeze())?;
    /// assert_eq!(pool.lent(), 1); // in the connection
    /// right.recv()?;
    /// assert_eq!(pool.lent(), 0);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn lent(&self) -> usize {
        self.0.idle().iter().filter(|frozen| frozen.is_lent()).count()
    }
}

impl Default for SharedPool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedPool({} pieces kept)", self.0.idle().len())
    }
}

/// Rounds a length up, so that buffers of about the same length use the same memory.
fn size_for(len: usize) -> io::Result<usize> {
    let step = (len.checked_next_power_of_two().unwrap_or(len) / 16).max(PAGE);
    len.max(1).checked_next_multiple_of(step).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

/// No segment that fits is free.
struct NothingFree {
    /// The limit of kept segments is reached.
    is_full: bool,
}

impl Pool {
    fn idle(&self) -> MutexGuard<'_, Vec<Frozen>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, size: usize) -> io::Result<Segment> {
        let mut patience = None;
        loop {
            match self.try_take(size) {
                Ok(segment) => return Ok(segment),
                Err(NothingFree { is_full: false }) => return Segment::create(size),
                Err(NothingFree { is_full: true }) => {
                    // Not longer than creating one takes, some 500 µs per MiB, so the cost never
                    // exceeds twice that of the better choice.
                    let worth = || Duration::from_nanos(size as u64 / 2);
                    if patience.get_or_insert_with(|| Deadline::after(worth())).is_past() {
                        return Segment::create(size);
                    }
                    thread::yield_now();
                }
            }
        }
    }

    /// Returns the free segment that was returned last, which is most likely to be in the cache.
    fn try_take(&self, size: usize) -> Result<Segment, NothingFree> {
        let mut idle = self.idle();
        let mut is_lent = false;
        for index in (0..idle.len()).rev() {
            if !(size..=size.saturating_mul(4)).contains(&idle[index].len()) {
                continue;
            }
            match idle.remove(index).thaw() {
                Ok(segment) => return Ok(segment),
                Err(frozen) => idle.insert(index, frozen),
            }
            is_lent = true;
        }
        let is_full =
            idle.len() >= self.max_segments || bytes(&idle).saturating_add(size) > self.max_bytes;
        Err(NothingFree { is_full: is_full && is_lent })
    }

    fn give_back(&self, frozen: Frozen) {
        let mut idle = self.idle();
        idle.push(frozen);
        let is_too_much =
            |idle: &[_]| idle.len() > self.max_segments || bytes(idle) > self.max_bytes;
        let too_many = (0..idle.len()).take_while(|&n| is_too_much(&idle[n..])).count();
        let gone: Vec<Frozen> = idle.drain(..too_many).collect();
        // Unmapping is slow, so the lock is released first.
        drop(idle);
        drop(gone);
    }
}

fn bytes(segments: &[Frozen]) -> usize {
    segments.iter().map(Frozen::len).sum()
}

/// Memory of a [`SharedPool`], to be filled: a slice of bytes.
///
/// Dropping it returns it to its pool.
///
/// ```
/// use multiproc_pipe::SharedPool;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut buffer = SharedPool::new().buffer(100)?;
/// let length = std::io::Write::write(&mut &mut buffer[..], b"as long as it takes")?;
/// buffer.truncate(length);
/// assert_eq!(&*buffer.freeze(), b"as long as it takes");
/// # Ok(())
/// # }
/// ```
pub struct SharedBuffer {
    /// `Some` until it is frozen or dropped.
    segment: Option<Segment>,
    len: usize,
    pool: Arc<Pool>,
}

impl SharedBuffer {
    /// Shortens it to `len` bytes, if it is longer. The rest is not part of the frozen bytes.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes its content immutable, to be sent.
    #[must_use]
    pub fn freeze(mut self) -> SharedBytes {
        let frozen = self.segment.take().map(Segment::freeze);
        SharedBytes::filled(Filled { frozen, len: self.len, pool: Arc::clone(&self.pool) })
    }
}

impl Deref for SharedBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.segment.as_ref().map_or(&[], |segment| &segment.bytes()[..self.len])
    }
}

impl DerefMut for SharedBuffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.segment.as_mut().map_or(&mut [], |segment| &mut segment.bytes_mut()[..self.len])
    }
}

impl AsRef<[u8]> for SharedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for SharedBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl fmt::Debug for SharedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedBuffer({} bytes)", self.len)
    }
}

impl Drop for SharedBuffer {
    fn drop(&mut self) {
        if let Some(segment) = self.segment.take() {
            self.pool.give_back(segment.freeze());
        }
    }
}

/// A frozen buffer, the memory of a [`SharedBytes`].
pub(crate) struct Filled {
    /// `Some` until it is dropped.
    frozen: Option<Frozen>,
    len: usize,
    pool: Arc<Pool>,
}

impl Filled {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.frozen.as_ref().map_or(&[], |frozen| &frozen.bytes()[..self.len])
    }

    pub(crate) fn lend(&self) -> io::Result<OwnedFd> {
        self.frozen.as_ref().ok_or(io::ErrorKind::NotFound)?.lend()
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            self.pool.give_back(frozen);
        }
    }
}
