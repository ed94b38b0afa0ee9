//! A set of sources to wait for, which is kept from call to call.

use std::fmt;
use std::io;
use std::ops::Index;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::wait::{Source, wait_for_any};

/// A set of sources to wait for, which is kept from call to call.
///
/// It waits as [`wait`](crate::wait) does, and names the sources by [`Token`]s, which stay the same
/// when other sources are added or removed. It owns its sources: [`remove`](Self::remove) returns
/// one, and indexing by a token borrows it.
///
/// A set of workers that are joined as they end:
///
/// ```
/// use multiproc_pipe::{Receiver, Sender, WaitSet, simplex};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut answers = WaitSet::new();
/// for worker in 0..3_u32 {
///     let (receiver, sender) = simplex::<u32>()?;
///     answers.add(receiver);
///     std::thread::spawn(move || sender.send(worker * worker)); // or a process
/// }
/// let mut sum = 0;
/// while !answers.is_empty() {
///     for token in answers.wait(None)? {
///         match answers[token].recv() {
///             Ok(number) => sum += number,
///             Err(_) => drop(answers.remove(token)), // the worker has ended
///         }
///     }
/// }
/// assert_eq!(sum, 5);
/// # Ok(())
/// # }
/// ```
///
/// All sources are of one type `S`. For several types, `S` is `&dyn Source` or `Box<dyn Source>`. A
/// set is a source itself, so sets of different types can be waited for together:
///
/// ```
/// use multiproc_pipe::{Source, WaitSet, duplex, simplex, wait};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (requests, client) = duplex::<u32, String>()?;
/// let (stop, stopper) = simplex::<()>()?;
/// let mut sources = WaitSet::<&dyn Source>::new();
/// let (on_request, on_stop) = (sources.add(&requests), sources.add(&stop));
/// client.send("work".to_owned())?;
/// assert_eq!(sources.wait(None)?, [on_request]);
/// drop(stopper);
/// assert_eq!(sources.wait(None)?, [on_request, on_stop]);
///
/// let zero = std::fs::File::open("/dev/zero")?;
/// assert_eq!(wait([&sources as &dyn Source, &zero], None)?, [0, 1]);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "select")]
#[doc(alias = "selectors")]
#[doc(alias = "poll")]
#[doc(alias = "epoll")]
pub struct WaitSet<S> {
    /// In ascending order, each for the source at the same index.
    tokens: Vec<Token>,
    sources: Vec<S>,
    next: u64,
}

/// Identifies a source of a [`WaitSet`].
///
/// A token is not reused by its set. Tokens of different sets may be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl<S> WaitSet<S> {
    /// Creates an empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { tokens: Vec::new(), sources: Vec::new(), next: 0 }
    }

    /// Adds a source and returns its token.
    pub fn add(&mut self, source: S) -> Token {
        let token = Token(self.next);
        self.next += 1;
        self.tokens.push(token);
        self.sources.push(source);
        token
    }

    /// Removes a source and returns it, or `None` if it is not in the set.
    ///
    /// ```
    /// use multiproc_pipe::{WaitSet, simplex};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (receiver, sender) = simplex::<u32>()?;
    /// let mut set = WaitSet::new();
    /// let token = set.add(receiver);
    /// sender.send(7)?;
    /// assert_eq!(set.remove(token).unwrap().recv()?, 7);
    /// assert!(set.remove(token).is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub fn remove(&mut self, token: Token) -> Option<S> {
        let index = self.find(token)?;
        self.tokens.remove(index);
        Some(self.sources.remove(index))
    }

    /// Returns a source, or `None` if it is not in the set.
    #[must_use]
    pub fn get(&self, token: Token) -> Option<&S> {
        self.find(token).map(|index| &self.sources[index])
    }

    /// Returns the number of sources.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Returns `true` if there are no sources.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Returns an iterator over the sources and their tokens, in the order in which they were
    /// added.
    pub fn iter(&self) -> impl Iterator<Item = (Token, &S)> {
        self.tokens.iter().copied().zip(&self.sources)
    }

    fn find(&self, token: Token) -> Option<usize> {
        self.tokens.binary_search(&token).ok()
    }
}

impl<S: Source> WaitSet<S> {
    /// Waits until one or more of the sources are ready, and returns the tokens of *all* ready
    /// ones, in the order in which they were added.
    ///
    /// `timeout` is the maximum time to wait: `None` waits indefinitely, zero does not wait. The
    /// result is empty if it expires, and at once if the set is empty. A source is ready under the
    /// same conditions as for [`wait`](crate::wait): the death of the process at the other end
    /// makes it ready as well.
    ///
    /// A ready source stays ready until it is used: a source that has ended must be removed, since
    /// each further call returns it.
    ///
    /// # Errors
    ///
    /// If the operating system or a source returns an error.
    ///
    /// ```
    /// use multiproc_pipe::{WaitSet, simplex};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (receiver, sender) = simplex::<u32>()?;
    /// let mut set = WaitSet::new();
    /// let token = set.add(receiver);
    /// assert!(set.wait(Some(Duration::from_millis(1)))?.is_empty());
    /// sender.send(7)?;
    /// assert_eq!(set.wait(None)?, [token]);
    /// assert_eq!(set[token].recv()?, 7);
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        let ready = wait_for_any(&self.sources, timeout)?;
        Ok(ready.into_iter().map(|index| self.tokens[index]).collect())
    }
}

/// Ready when one of its sources is ready. An empty set never is.
impl<S: Source> Source for WaitSet<S> {
    fn watch<'a>(&'a self, add: &mut dyn FnMut(BorrowedFd<'a>)) {
        self.sources.iter().for_each(|source| source.watch(add));
    }

    fn prepare(&self) -> io::Result<bool> {
        // Each has to prepare, also after one that is ready.
        self.sources.iter().try_fold(false, |is_ready, source| Ok(source.prepare()? || is_ready))
    }

    fn woken(&self) -> io::Result<bool> {
        // Which descriptor it was is not known.
        Ok(!self.wait(Some(Duration::ZERO))?.is_empty())
    }

    fn longest_sleep(&self) -> Duration {
        self.sources.iter().map(Source::longest_sleep).min().unwrap_or(Duration::MAX)
    }
}

/// Panics if the source is not in the set.
impl<S> Index<Token> for WaitSet<S> {
    type Output = S;

    fn index(&self, token: Token) -> &S {
        self.get(token).unwrap_or_else(|| panic!("{token:?} is not in the set"))
    }
}

impl<S> Default for WaitSet<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> fmt::Debug for WaitSet<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitSet").field("tokens", &self.tokens).finish_non_exhaustive()
    }
}
